"""The tokens at which generation stops: the model's own, and those that ended the answers that were learned. A base
model often knows no end of turn, or another one than the chat template writes."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

_FILE = "generation_config.json"


def own_ends(config: Any) -> list[int]:
    """Of a configuration of transformers, whose eos_token_id is a number, several, or None."""
    given = getattr(config, "eos_token_id", None)
    return [given] if isinstance(given, int) else list(given or [])


def add_ends(config: Any, ends: Iterable[int]) -> None:
    own = own_ends(config)
    new = sorted(set(ends) - set(own))
    if new:
        config.eos_token_id = [*own, *new] if own or len(new) > 1 else new[0]


def save_ends(config: Any, ends: Collection[int], adapter: Path) -> None:
    """Puts the base's generation_config.json with these ends beside an adapter, where the base has not all of them."""
    if set(ends) - set(own_ends(config)):
        changed = type(config).from_dict(config.to_dict())
        add_ends(changed, ends)
        (adapter / _FILE).write_text(changed.to_json_string())


def read_ends(adapter: Path) -> list[int]:
    """What save_ends has put there."""
    try:
        given = json.loads((adapter / _FILE).read_bytes()).get("eos_token_id")
    except FileNotFoundError:
        return []
    return [given] if isinstance(given, int) else list(given or [])
