"""Refuses files whose weights are not those that config.json describes, as far as their headers show."""

import re
from collections.abc import Iterable
from typing import Any

from contract.failure import InputError
from contract.model.config import unsupported
from contract.model.embeddings import embedding_rows
from contract.model.loaded_names import Shapes, model_type, text_config

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
_EMBEDDING = re.compile(r"embed|(?:^|\.)(?:wte|transformer\.w)\.")
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_REPEATED_LAYERS = ("hrm_text",)
"""Architectures whose config.json counts a layer once for each time that it runs."""


def check_matches_config(shapes: Shapes, config: dict[str, Any]) -> None:
    """`shapes` have the names of the loaded model. Raises InputError."""
    text = text_config(config) or config
    expected, found = _number(text, *_LAYER_COUNTS), _count_layers(shapes)
    if expected is not None and found < expected and model_type(config) not in _REPEATED_LAYERS:
        raise _mixed_up(f"config.json has {expected} layers, and its files have {found}")
    if not any(map(_EMBEDDING.search, shapes)):
        raise _mixed_up("its files have no embeddings")
    vocabulary, rows = _number(text, "vocab_size"), embedding_rows(shapes)
    if vocabulary is not None and rows is not None and vocabulary != rows:
        raise _mixed_up(f"vocab_size of config.json is {vocabulary}, and its files have {rows} embeddings")


def _number(config: dict[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def _count_layers(names: Iterable[str]) -> int:
    return max((int(layer[1]) + 1 for name in names if (layer := _LAYER.search(name))), default=0)


def _mixed_up(problem: str) -> InputError:
    return unsupported(f"{problem}; give the files that belong together")
