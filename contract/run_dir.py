"""The files of one run folder. Each attempt has a folder of its own, so a stale attempt can spoil nothing; what it
saved, a later one may go on from."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True)
class RunDir:
    path: Path

    @property
    def recipe(self) -> Path:
        """In: the recipe, its model and dataset resolved to absolute paths."""
        return self.path / "recipe.json"

    @property
    def events(self) -> Path:
        """Out: one contract.events line per happening."""
        return self.path / "events.jsonl"

    @property
    def error(self) -> Path:
        """Out: a contract.failure.Failure, when the trainer knows why it failed."""
        return self.path / "error.json"

    @property
    def log(self) -> Path:
        """Out: what the trainer and its launcher print."""
        return self.path / "trainer.log"

    @property
    def exit_report(self) -> Path:
        """Out: a contract.exit_report.ExitReport of all its processes, when they are gone."""
        return self.path / "exit_report.json"

    @property
    def superseded(self) -> Path:
        """In: a later attempt goes on from here, and nothing more may be saved. The trainer of an attempt that the
        service has given up may still be there, where nobody sees it."""
        return self.path / "superseded"

    @property
    def adapter(self) -> Path:
        """Out: the final adapter, as PEFT saves it."""
        return self.path / "adapter"

    @property
    def merged(self) -> Path:
        """Out: the base with the adapter in it, in a folder that is for that alone."""
        return self.path / "merged"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """Out: the adapter after a step."""
        return self.checkpoints / f"step-{step:06d}"

    @property
    def states(self) -> Path:
        return self.path / "states"

    def state(self, step: int) -> Path:
        """Out: all that a run needs to go on from a step. The newest ones are kept, and none of a run that is done."""
        return self.states / f"step-{step:06d}"


def partial(folder: Path) -> Path:
    """Where an adapter or a state is written until it is whole and on disk."""
    return folder.with_name(f".{folder.name}.partial")


Meanwhile = Callable[[], object]
"""What whoever reads whole states does after each piece of them: they may be large, and the disk far away."""

_PIECE = 1 << 20
"""Bytes."""

_DIGESTS = "digests.json"
_digests = TypeAdapter(dict[str, str])


def seal(state: Path) -> None:
    """Writes the digests of a state's files beside them: the last that is written of a state."""
    digests = {file.name: _digest(file) for file in sorted(state.iterdir()) if file.name != _DIGESTS}
    (state / _DIGESTS).write_text(json.dumps(digests, indent=2) + "\n")


def is_whole(state: Path, meanwhile: Meanwhile = lambda: None) -> bool:
    """Every file of a state is as it was sealed. Reads all of them."""
    sealed = _sealed(state)
    return bool(sealed) and all(is_as_sealed(state / file, meanwhile) for file in sealed)


def is_as_sealed(file: Path, meanwhile: Meanwhile = lambda: None) -> bool:
    try:
        return _sealed(file.parent).get(file.name) == _digest(file, meanwhile)
    except FileNotFoundError:
        return False


def _sealed(state: Path) -> dict[str, str]:
    """SHA-256 by file; empty where it never was sealed, or its digests are torn."""
    try:
        return _digests.validate_json((state / _DIGESTS).read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}


def _digest(path: Path, meanwhile: Meanwhile = lambda: None) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            meanwhile()
    return digest.hexdigest()


def saved_states(run_dirs: Iterable[RunDir]) -> list[Path]:
    """The furthest first, and of two after the same step that of the later run. Not all need be whole."""
    states = [path for run in run_dirs for path in run.states.glob("step-*")]
    return sorted(states, key=lambda path: int(path.name.removeprefix("step-")))[::-1]


def newest_state(run_dirs: Iterable[RunDir], meanwhile: Meanwhile = lambda: None) -> tuple[Path | None, list[Path]]:
    """The furthest whole state of these runs, and those further on that are damaged. The runs in the order in which
    they were made."""
    damaged: list[Path] = []
    for state in saved_states(run_dirs):
        if is_whole(state, meanwhile):
            return state, damaged
        damaged.append(state)
    return None, damaged


def forget_states(run_dirs: Iterable[RunDir], keep: int, meanwhile: Meanwhile = lambda: None) -> None:
    """Removes all but the `keep` furthest whole states of these runs, and what those who were killed have left half
    written or half removed. The runs have been superseded, where they may still be going."""
    runs = list(run_dirs)
    kept = 0
    for state in saved_states(runs):
        if kept < keep and is_whole(state, meanwhile):
            kept += 1
        else:
            forget(state)
    for run in runs:
        for folder in (run.path, run.checkpoints, run.states):
            for left in (*folder.glob(".*.partial"), *folder.glob(".*.gone")):
                _remove(left)


def forget(state: Path) -> None:
    # Renamed first: what is half removed must not look like a state.
    gone = state.with_name(f".{state.name}.gone")
    with contextlib.suppress(FileNotFoundError):
        state.rename(gone)
        _remove(gone)


def _remove(folder: Path) -> None:
    # Another attempt's process may write there, or remove the same: what it leaves is for the next look.
    shutil.rmtree(folder, ignore_errors=True)
