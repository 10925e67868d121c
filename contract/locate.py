"""Finds the files that a recipe names, and nothing outside the folders that the operator allows.

The nearest known folder above a file, with links resolved, decides whether it may be read: one of `Folders`, which are
open, or the home, which is closed. So it does not matter which of them contains the other. Folders are compared by
device and inode, since a bind mount gives a folder several paths.
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
from contract.formatting import truncate
from contract.model.earlier_adapter import CONFIG

PRIVATE = ("blobs", "cache", "incoming", "logs", "postgres", "runs", "valkey", "wandb")
"""Folders of the home with owners' data, which stay closed if a link has put them on another disk."""

_TEMPLATES = "additional_chat_templates"
_INDEX = "model.safetensors.index.json"
_MAX_INDEX_BYTES = 64 << 20
_SYSTEM_FOLDERS = ("/proc", "/sys", "/dev", "/etc")
_IN_MEMORY = "/dev/shm"
# Narrower than the hub's own rule, so that no path with folders is taken for an id.
_HUB_ID = re.compile(r"(?!.*\.\.)[a-z0-9][\w.-]*/[a-z0-9][\w.-]*", re.ASCII | re.IGNORECASE)
_CACHED = "models--"
"""Begins the name of a model's folder in huggingface_hub's cache."""
_HUB_BLOB = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")

_Identity = tuple[int, int]


@dataclass(frozen=True)
class Folders:
    """Folders that recipes may name files in."""

    models: Path
    """Each folder in it is a model. The operator's links there are followed wherever they lead."""
    allowed: Sequence[Path]
    """Allowed folders, for data and models."""
    datasets: Path | None = None
    home: Path | None = None
    """The service's home. Nothing in it may be read except `models` and `datasets`, and hidden files are not data. None
    for a trainer, whose recipe comes from the worker or the operator."""

    @property
    def closed(self) -> set[_Identity]:
        home = [] if self.home is None else [self.home, *(self.home / name for name in PRIVATE)]
        return set(_existing_identities(home))


def locate_dataset(path: str, folders: Folders) -> Path:
    """The absolute path of a file of examples. Raises InputError if it is missing, hidden or outside `folders`."""
    folders_searched = [folder for folder in (folders.datasets, *folders.allowed) if folder is not None]
    rules = _FolderRules(folders_searched, folders.closed)
    found = rules.find(path)
    if found is None or (folders.home is not None and rules.is_hidden(found)) or not found.is_file():
        raise InputError(
            FailureCode.DATASET_NOT_FOUND,
            f"dataset: no file {truncate(path, 200)} on the server; looked in "
            f"{', '.join(map(str, folders_searched))}, but not "
            "for hidden files, nor in the service's own folders",
            "dataset",
        )
    return found


def locate_model(model: str, folders: Folders) -> Path | None:
    """The absolute path of the base model's folder; None for a hub id, which only a download can check.

    Raises InputError for a folder that is missing, holds no supported model, or has a link that leads out of `folders`.
    """
    models = folders.models
    rules = _FolderRules([models, *folders.allowed], folders.closed, _links_on_the_way(model, models))
    found = rules.find(model)
    if found is None:
        if _HUB_ID.fullmatch(model):
            return None
        names = sorted(folder.name for folder in models.iterdir() if folder.is_dir()) if models.is_dir() else []
        raise InputError(
            FailureCode.MODEL_NOT_FOUND,
            f"model: no folder {truncate(model, 200)} on the server; models there: {', '.join(names) or '(none)'}; "
            "a model of a hub is named org/name",
            "model",
        )
    if gguf := _gguf_file(found):
        raise _unsupported(
            model,
            f"is a GGUF file, which is converted once; on the server: python -m trainer.tools.import_gguf {gguf} "
            f"{models}/{gguf.stem}",
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
        for path in _files_read(model, found):
            _check_file(model, path, found, rules, hidden=folders.home is None)
    except OSError as error:
        raise _unsupported(model, f"cannot be read: {error.strerror}") from error
    if not (found / "tokenizer.json").is_file():
        raise _unsupported(
            model,
            "has no tokenizer.json, which is needed to find the answers' tokens; write one: "
            "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    return found


def public_name(model: str, folder: Path | None) -> str:
    """The name of a recipe's model for people elsewhere: its hub id if it has one, else its folder's name. `folder` is
    what locate_model returns."""
    if folder is None:
        return model
    cached = folder.parent.parent.name
    if folder.parent.name == "snapshots" and cached.startswith(_CACHED):
        return cached.removeprefix(_CACHED).replace("--", "/", 1)
    return model if _HUB_ID.fullmatch(model) else folder.name


def _gguf_file(found: Path) -> Path | None:
    """The file itself, or the first in a folder that has no other weights."""
    if found.is_file():
        return found if found.suffix == ".gguf" else None
    return None if any(found.glob("*.safetensors")) else min(found.glob("*.gguf"), default=None)


def refusal_reason(folder: Path, home: Path) -> str | None:
    """Why the operator may not allow this folder with that home; None if it is allowed."""
    resolved = folder.resolve()
    if resolved == Path("/"):
        return "it is the whole machine; name the folders of your data and models"
    if any(resolved.is_relative_to(each) for each in _SYSTEM_FOLDERS) and not resolved.is_relative_to(_IN_MEMORY):
        return "it belongs to the system; name the folders of your data and models"
    own = [home / "models", home / "datasets"]
    if any(resolved.is_relative_to(each.resolve()) for each in own):  # by name, since they may not exist yet
        return None
    closed = Folders(own[0], [], own[1], home).closed
    if resolved.is_relative_to(home.resolve()) or _FolderRules(own, closed).is_closed(resolved):
        return f"it lies in the service's home {home}, with the files of all owners; move your data to {home}/datasets"
    return None


class _FolderRules:
    """Rules for open and closed folders."""

    def __init__(self, folders: Sequence[Path], closed: set[_Identity], linked: Iterable[Path] = ()) -> None:
        """Files are searched only in `folders`; `linked` are open as well."""
        self._folders = folders
        self._open = set(_existing_identities([*folders, *linked]))
        self._closed = closed

    def find(self, path: str) -> Path | None:
        """`path` below one of the folders, with links resolved: the first that exists and may be read, or None."""
        for folder in self._folders:
            # The name may be too long or contain NUL, links may form a circle (RuntimeError), or a folder may be
            # unreadable.
            with suppress(OSError, ValueError, RuntimeError):
                found = (folder / path).resolve()
                if found.exists() and self.is_allowed(found):
                    return found
        return None

    def is_allowed(self, resolved: Path) -> bool:
        return self._open_above(resolved) is not None

    def is_hidden(self, resolved: Path) -> bool:
        """Whether its name, or a folder's above it, begins with a dot, as in ~/.ssh."""
        above = self._open_above(resolved)
        return above is None or any(part.startswith(".") for part in resolved.relative_to(above).parts)

    def is_closed(self, resolved: Path) -> bool:
        nearest = self._nearest(resolved)
        return nearest is not None and nearest[1] in self._closed

    def _open_above(self, resolved: Path) -> Path | None:
        nearest = self._nearest(resolved)
        return None if nearest is None or nearest[1] in self._closed else nearest[0]

    def _nearest(self, resolved: Path) -> tuple[Path, _Identity] | None:
        """The nearest open or closed folder above it, or itself."""
        for folder in (resolved, *resolved.parents):
            for identity in _existing_identities([folder]):
                if identity in self._closed or identity in self._open:
                    return folder, identity
        return None


def _existing_identities(folders: Iterable[Path]) -> Iterator[_Identity]:
    """Identities of the folders that exist."""
    for folder in folders:
        with suppress(OSError, ValueError):
            status = folder.stat()
            yield status.st_dev, status.st_ino


def _links_on_the_way(model: str, models: Path) -> Iterator[Path]:
    """Links by which the operator has put a model, or a folder of models, into `models`. A link inside a model's folder
    does not count, since the model's author may have made it."""
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


def _files_read(model: str, folder: Path) -> Iterator[Path]:
    """The files of a model's folder that the API or a trainer may read. Raises InputError."""
    yield from folder.iterdir()
    templates = folder / _TEMPLATES
    if templates.is_dir():
        yield from templates.iterdir()
    index = folder / _INDEX
    if index.is_file() and index.stat().st_size > _MAX_INDEX_BYTES:
        raise _unsupported(model, f"has an {_INDEX} of more than {_MAX_INDEX_BYTES >> 20} MiB; is it one?")
    for shard in _shards(index):
        if shard.startswith("/") or ".." in shard.split("/") or "\0" in shard:
            raise _unsupported(model, f"names the weights {truncate(shard)} in {_INDEX}; they have to be in its folder")
        if "/" in shard:
            yield folder / shard


def _shards(index: Path) -> set[str]:
    """The shards that an index names. An invalid index is refused when the weights are read."""
    try:
        named = json.loads(index.read_bytes())["weight_map"].values()
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return set()
    return {name for name in named if isinstance(name, str)}


def _check_file(model: str, path: Path, folder: Path, rules: _FolderRules, hidden: bool) -> None:
    """Raises InputError for a file that leads outside, that is hidden although it may not be, or whose reading would
    block, such as a pipe."""
    name = truncate(str(path.relative_to(folder)))
    try:
        resolved = path.resolve()
        visible = hidden or resolved.is_relative_to(folder) or not rules.is_hidden(resolved)
        led_away = path.is_symlink() or path.parent != folder
        if led_away and not (rules.is_allowed(resolved) and visible) and not _is_blob_of_the_hub(resolved, folder):
            raise _unsupported(
                model,
                f"has a link {name} that leads out of the folders that recipes may name; copy the file to its place, "
                "or link the whole folder",
            )
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, RuntimeError) as error:
        raise _unsupported(model, f"has a file {name} that cannot be read: {truncate(str(error), 200)}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise _unsupported(model, f"has {name} in it, which is neither a file nor a folder; take it away")


def _is_blob_of_the_hub(resolved: Path, folder: Path) -> bool:
    """Whether a file of CACHE/snapshots/REVISION leads to CACHE/blobs/DIGEST, which is huggingface_hub's layout."""
    return (
        folder.parent.name == "snapshots"
        and resolved.parent == folder.parent.parent / "blobs"
        and _HUB_BLOB.fullmatch(resolved.name) is not None
    )


def _unsupported(model: str, problem: str) -> InputError:
    return InputError(FailureCode.MODEL_UNSUPPORTED, f"model: {truncate(model, 200)} {problem}", "model")
