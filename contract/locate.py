"""Finds the files that a recipe names, and nothing outside the folders that the operator allows.

The nearest known folder above a file, links followed, decides whether it may be read: one of `Folders` that is open, or
the home, which is closed. So it does not matter which of them contains the other. Folders are compared by device and
inode, as a bind mount gives one folder several paths.
"""

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from contract.failure import FailureCode, InputError
from contract.model.earlier_adapter import CONFIG
from contract.quote import cut

PRIVATE = ("blobs", "cache", "incoming", "logs", "postgres", "runs", "valkey")
"""Folders of the home with what owners have: also where a link has put one of them on another disk."""

_TEMPLATES = "additional_chat_templates"
_INDEX = "model.safetensors.index.json"
_LARGEST_INDEX = 64 << 20
_SYSTEM = ("/proc", "/sys", "/dev", "/etc")
_IN_MEMORY = "/dev/shm"
# Narrower than the hub's own rule, so that nothing which walks through folders is taken for an id.
_HUB_ID = re.compile(r"(?!.*\.\.)[a-z0-9][\w.-]*/[a-z0-9][\w.-]*", re.ASCII | re.IGNORECASE)
_HUB_BLOB = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")

_Identity = tuple[int, int]


@dataclass(frozen=True)
class Folders:
    """Where the files of recipes may lie."""

    models: Path
    """Each folder in it is a model. Links that the operator has put there are followed, wherever they lead."""
    allowed: Sequence[Path]
    """For data and models."""
    datasets: Path | None = None
    home: Path | None = None
    """The service's. Nothing in it may be read, but what is in `models` and `datasets`; nor are hidden files data. None
    for a trainer, whose recipe the worker has resolved, or the operator has written."""

    @property
    def closed(self) -> set[_Identity]:
        home = [] if self.home is None else [self.home, *(self.home / name for name in PRIVATE)]
        return set(_identities(home))


def locate_dataset(path: str, folders: Folders) -> Path:
    """The file of examples, absolute. Raises InputError when it is absent, hidden, or outside of `folders`."""
    places = [folder for folder in (folders.datasets, *folders.allowed) if folder is not None]
    place = _Place(places, folders.closed)
    found = place.find(path)
    if found is None or (folders.home is not None and place.hides(found)) or not found.is_file():
        raise InputError(
            FailureCode.DATASET_NOT_FOUND,
            f"dataset: no file {cut(path, 200)} on the server; looked in {', '.join(map(str, places))}, but not for "
            "hidden files, nor in the service's own folders",
            "dataset",
        )
    return found


def locate_model(model: str, folders: Folders) -> Path | None:
    """The base model's folder, absolute; None for a hub id, which only a download can check.

    Raises InputError when a folder is meant and is not there, holds no model that we load, or has a link in it that
    leads out of `folders`.
    """
    models = folders.models
    place = _Place([models, *folders.allowed], folders.closed, _links_on_the_way(model, models))
    found = place.find(model)
    if found is None:
        if _HUB_ID.fullmatch(model):
            return None
        names = sorted(folder.name for folder in models.iterdir() if folder.is_dir()) if models.is_dir() else []
        raise InputError(
            FailureCode.MODEL_NOT_FOUND,
            f"model: no folder {cut(model, 200)} on the server; models there: {', '.join(names) or '(none)'}; "
            "a model of a hub is named org/name",
            "model",
        )
    if not (found / "config.json").is_file() or not any(found.glob("*.safetensors")):
        raise _unsupported(model, "has no config.json with *.safetensors beside it; other weight files are not loaded")
    if (found / CONFIG).exists():
        raise _unsupported(
            model,
            f"has an adapter in it ({CONFIG}), which would be loaded too; give the folder of its base alone, and what "
            "a job has saved as adapter.start_from",
        )
    try:
        for path in _read_of(model, found):
            _check_file(model, path, found, place, hidden=folders.home is None)
    except OSError as error:
        raise _unsupported(model, f"cannot be read: {error.strerror}") from error
    return found


def why_not_allowed(folder: Path, home: Path) -> str | None:
    """Why the operator may not allow this folder beside that home, where that is so."""
    resolved = folder.resolve()
    if resolved == Path("/"):
        return "it is the whole machine; name the folders of your data and models"
    if any(resolved.is_relative_to(each) for each in _SYSTEM) and not resolved.is_relative_to(_IN_MEMORY):
        return "it belongs to the system; name the folders of your data and models"
    own = [home / "models", home / "datasets"]
    if any(resolved.is_relative_to(each.resolve()) for each in own):  # by name, as they may not be there yet
        return None
    closed = Folders(own[0], [], own[1], home).closed
    if resolved.is_relative_to(home.resolve()) or _Place(own, closed).closes(resolved):
        return f"it lies in the service's home {home}, with the files of all owners; move your data to {home}/datasets"
    return None


class _Place:
    """Folders that are open, and those that are closed."""

    def __init__(self, folders: Sequence[Path], closed: set[_Identity], linked: Iterable[Path] = ()) -> None:
        """`linked` are open as well, but nothing is looked for in them."""
        self._folders = folders
        self._open = set(_identities([*folders, *linked]))
        self._closed = closed

    def find(self, path: str) -> Path | None:
        """`path` below one of the folders, links followed; the first that exists and may be read, else None."""
        for folder in self._folders:
            # A name too long, a NUL in it, links in circles (a RuntimeError), a folder that we may not look into.
            with suppress(OSError, ValueError, RuntimeError):
                found = (folder / path).resolve()
                if found.exists() and self.has(found):
                    return found
        return None

    def has(self, resolved: Path) -> bool:
        return self._open_above(resolved) is not None

    def hides(self, resolved: Path) -> bool:
        """Whether it lies below a folder whose name begins with a dot, as ~/.ssh does, or has such a name itself."""
        above = self._open_above(resolved)
        return above is None or any(part.startswith(".") for part in resolved.relative_to(above).parts)

    def closes(self, resolved: Path) -> bool:
        nearest = self._nearest(resolved)
        return nearest is not None and nearest[1] in self._closed

    def _open_above(self, resolved: Path) -> Path | None:
        nearest = self._nearest(resolved)
        return None if nearest is None or nearest[1] in self._closed else nearest[0]

    def _nearest(self, resolved: Path) -> tuple[Path, _Identity] | None:
        """The nearest folder above it, or itself, that is open or closed."""
        for folder in (resolved, *resolved.parents):
            for identity in _identities([folder]):
                if identity in self._closed or identity in self._open:
                    return folder, identity
        return None


def _identities(folders: Iterable[Path]) -> Iterator[_Identity]:
    """Of those that exist."""
    for folder in folders:
        with suppress(OSError, ValueError):
            status = folder.stat()
            yield status.st_dev, status.st_ino


def _links_on_the_way(model: str, models: Path) -> Iterator[Path]:
    """The links by which the operator has put a model, or a folder of models, into `models`. A link within a model's
    folder is none of these: whoever made the model may have made it."""
    if os.path.isabs(model) or ".." in Path(model).parts:
        return
    folder = models
    with suppress(OSError, ValueError):
        for part in Path(model).parts:
            if (folder / "config.json").exists():
                return
            folder = folder / part
            if folder.is_symlink():
                yield folder


def _read_of(model: str, folder: Path) -> Iterator[Path]:
    """What the API or a trainer may read of a model's folder. Raises InputError."""
    yield from folder.iterdir()
    templates = folder / _TEMPLATES
    if templates.is_dir():
        yield from templates.iterdir()
    index = folder / _INDEX
    if index.is_file() and index.stat().st_size > _LARGEST_INDEX:
        raise _unsupported(model, f"has an {_INDEX} of more than {_LARGEST_INDEX >> 20} MiB; is it one?")
    for shard in _shards(index):
        if shard.startswith("/") or ".." in shard.split("/") or "\0" in shard:
            raise _unsupported(model, f"names the weights {cut(shard)} in {_INDEX}; they have to be in its folder")
        if "/" in shard:
            yield folder / shard


def _shards(index: Path) -> set[str]:
    """What is no index is for whoever reads the weights to refuse."""
    try:
        named = json.loads(index.read_bytes())["weight_map"].values()
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return set()
    return {name for name in named if isinstance(name, str)}


def _check_file(model: str, path: Path, folder: Path, place: _Place, hidden: bool) -> None:
    """Raises InputError where it leads out, or to a hidden file where that may not be, or where reading it would wait
    for somebody, as of a pipe."""
    name = cut(str(path.relative_to(folder)))
    try:
        resolved = path.resolve()
        visible = hidden or resolved.is_relative_to(folder) or not place.hides(resolved)
        led_away = path.is_symlink() or path.parent != folder
        if led_away and not (place.has(resolved) and visible) and not _is_blob_of_the_hub(resolved, folder):
            raise _unsupported(
                model,
                f"has a link {name} that leads out of the folders that recipes may name; copy the file to its place, "
                "or link the whole folder",
            )
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, RuntimeError) as error:
        raise _unsupported(model, f"has a file {name} that cannot be read: {cut(str(error), 200)}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _unsupported(model, f"has {name} in it, which is neither a file nor a folder; take it away")


def _is_blob_of_the_hub(resolved: Path, folder: Path) -> bool:
    """Whether a file of CACHE/snapshots/REVISION leads to CACHE/blobs/DIGEST, as huggingface_hub lays them out."""
    return (
        folder.parent.name == "snapshots"
        and resolved.parent == folder.parent.parent / "blobs"
        and _HUB_BLOB.fullmatch(resolved.name) is not None
    )


def _unsupported(model: str, problem: str) -> InputError:
    return InputError(FailureCode.MODEL_UNSUPPORTED, f"model: {cut(model, 200)} {problem}", "model")
