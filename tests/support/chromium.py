"""A real browser for the tests of the dashboard: Debian's Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser


CHROMIUM = shutil.which("chromium")
NO_CHROMIUM = "The dashboard was not tested: there is no chromium here (on Debian: apt-get install chromium)."
_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--no-first-run"]
"""Without a sandbox, which root cannot have, and without a search for servers of its maker."""


@contextmanager
def browser() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright  # not where no test wants one

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        yield running
        running.close()
