"""Which files of a model's folder hold the weights that transformers loads."""

from pathlib import Path
from typing import Any

from contract.model.config import read_object, unsupported
from contract.quote import cut, quote

ONE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_EXPLICIT = "transformers_weights"
"""The name in config.json of another file to load."""
_SHOWN = 3


def weight_files(folder: Path, config: dict[str, Any]) -> dict[Path, list[str] | None]:
    """The files, each with the names of the weights that the index expects in it; None without an index.

    The order is transformers': a file that the config names, one whole file, the shards of an index. Everything else,
    such as the consolidated.safetensors of Mistral's repositories, is not loaded. Raises InputError for no such file,
    a missing shard and an index that cannot be read.
    """
    explicit = config.get(_EXPLICIT)
    if explicit is not None:
        if not _is_plain_name(explicit) or not (folder / explicit).is_file():
            raise unsupported(f"{_EXPLICIT} of config.json is {quote(explicit)}, and the folder has no such file")
        return _shards(folder, explicit) if explicit.endswith(".index.json") else {folder / explicit: None}
    if (folder / ONE).is_file():
        return {folder / ONE: None}
    if (folder / INDEX).is_file():
        return _shards(folder, INDEX)
    raise unsupported(_without_weights(folder))


def _without_weights(folder: Path) -> str:
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    if not others:
        return f"the folder has no {ONE} and no {INDEX}; weights in other formats are not loaded"
    return (
        f"the folder has {_some(others)}, which transformers does not load: it wants {ONE}, or {INDEX} with the shards "
        "that it names; copy these from where the model comes"
    )


def _shards(folder: Path, index: str) -> dict[Path, list[str] | None]:
    by_file: dict[str, list[str]] = {}
    for weight, file in _weight_map(folder / index).items():
        by_file.setdefault(file, []).append(weight)
    missing = sorted(file for file in by_file if not (folder / file).is_file())
    if missing:
        raise unsupported(
            f"{len(missing)} of the {len(by_file)} files that {index} names are missing: {_some(missing)}; copy or "
            "download them again"
        )
    return {folder / file: weights for file, weights in sorted(by_file.items())}


def _weight_map(path: Path) -> dict[str, str]:
    index = read_object(path)
    weights = index.get("weight_map")
    if not isinstance(weights, dict) or not weights or not all(_is_plain_name(file) for file in weights.values()):
        raise unsupported(f"{path.name} has no weight_map of weights to files beside it; copy or download it again")
    return weights


def _is_plain_name(name: Any) -> bool:
    """Of a file in the folder itself."""
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and "\0" not in name


def _some(names: list[str]) -> str:
    shown = ", ".join(cut(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
