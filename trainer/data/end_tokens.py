"""The tokens at which generation stops: the model's own, and those that ended the learned answers. A base model often
has no end-of-turn token, or not the one of the chat template."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

_FILE = "generation_config.json"


def end_token_ids(config: Any) -> list[int]:
    """The ids in a transformers configuration, whose eos_token_id is a number, a list or None."""
    given = getattr(config, "eos_token_id", None)
    return [given] if isinstance(given, int) else list(given or [])


def add_end_tokens(config: Any, ends: Iterable[int]) -> None:
    own = end_token_ids(config)
    new = sorted(set(ends) - set(own))
    if new:
        config.eos_token_id = [*own, *new] if own or len(new) > 1 else new[0]


def save_end_tokens(config: Any, ends: Collection[int], adapter: Path) -> None:
    """Saves the base's generation_config.json with these ids beside an adapter, unless the base already has all of
    them."""
    if set(ends) - set(end_token_ids(config)):
        changed = type(config).from_dict(config.to_dict())
        add_end_tokens(changed, ends)
        (adapter / _FILE).write_text(changed.to_json_string())


def read_end_tokens(adapter: Path) -> list[int]:
    """The ids that save_end_tokens has saved there."""
    try:
        given = json.loads((adapter / _FILE).read_bytes()).get("eos_token_id")
    except FileNotFoundError:
        return []
    return [given] if isinstance(given, int) else list(given or [])
