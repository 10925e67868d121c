"""Sphinx's configuration of the docs site. scripts/docs builds it.

The sources are the pages as they lie in the repository, so the site shows what a code host shows. Nothing of the site
is loaded from elsewhere: no fonts, no scripts, no search service.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from docs.site.api_reference import render  # noqa: E402

project = "finetuned"
author = "the finetuned contributors"
copyright = author
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/decisions/*.md"]
extensions = ["myst_parser"]
nitpicky = True

myst_heading_anchors = 4
# A console block shows shortened JSON, which no lexer accepts.
highlight_language = "none"

html_theme = "furo"
html_title = "finetuned"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]
html_show_sphinx = False
html_copy_source = False

GUIDES = (
    "training methods models architectures adapters data datasets plans jobs sweeps events dashboard client cli "
    "webhooks tracking secrets artifacts exports chat evaluations openai parallel cluster kubernetes "
    "deploy gpu-troubleshooting keys observability operations speed"
)
CONTENTS = {
    "Start": ["/docs/tutorial"],
    "Guides": [f"/docs/{name}" for name in GUIDES.split()],
    "Reference": ["/docs/api", "/docs/glossary", "/docs/guarantees"],
    "Project": [
        "/docs/architecture",
        "/docs/decisions/README",
        "/CONTRIBUTING",
        "/CHANGELOG",
        "/SECURITY",
        "/RELEASING",
    ],
    "中文": ["简介 </README.zh-CN>", "/docs/tutorial.zh-CN"],
}
DECISIONS = sorted(path.stem for path in (ROOT / "docs/decisions").glob("0*.md"))
API_MARK = "<!-- The site has the reference here. -->"


def _contents(pages: list[str], *options: str) -> str:
    return "\n".join(["", "```{toctree}", ":hidden:", *options, "", *pages, "```", ""])


def complete(_: Sphinx, page: str, source: list[str]) -> None:
    """Adds what a page has on the site only: the navigation, and the reference made from openapi.json."""
    if page == root_doc:
        source[0] += "".join(_contents(pages, f":caption: {caption}") for caption, pages in CONTENTS.items())
    elif page == "docs/decisions/README":
        source[0] += _contents(DECISIONS)
    elif page == "docs/api":
        assert API_MARK in source[0], "docs/api.md has lost its mark"
        source[0] = source[0].replace(API_MARK, render())


def setup(app: Sphinx) -> None:
    app.connect("source-read", complete)
