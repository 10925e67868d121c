"""The files of a run folder. Each attempt has its own, so that a stale attempt can do no harm. A later attempt may
continue from what an earlier one saved."""

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
        """In: the recipe, with absolute paths for its model and dataset."""
        return self.path / "recipe.json"

    @property
    def events(self) -> Path:
        """Out: one line per event (contract.events)."""
        return self.path / "events.jsonl"

    @property
    def error(self) -> Path:
        """Out: a contract.failure.Failure, if the trainer knows why it failed."""
        return self.path / "error.json"

    @property
    def log(self) -> Path:
        """Out: the output of the trainer and its launcher."""
        return self.path / "trainer.log"

    @property
    def exit_report(self) -> Path:
        """Out: a contract.exit_report.ExitReport of all its processes, once they have ended."""
        return self.path / "exit_report.json"

    @property
    def superseded(self) -> Path:
        """In: a marker that a later attempt continues from here, so nothing more may be saved. A trainer that the
        service has given up may still be running somewhere."""
        return self.path / "superseded"

    @property
    def adapter(self) -> Path:
        """Out: the final adapter, as PEFT saves it."""
        return self.path / "adapter"

    @property
    def export_spec(self) -> Path:
        """In: a contract.export.ExportSpec, in a folder of an export."""
        return self.path / "export.json"

    @property
    def exported(self) -> Path:
        """Out: what an export has made."""
        return self.path / "exported"

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
        """Out: a training checkpoint, with everything needed to continue from a step. The newest ones are kept, and
        none once the run is done."""
        return self.states / f"step-{step:06d}"


def partial_path(folder: Path) -> Path:
    """Where an adapter or a training checkpoint is written until it is complete and on disk."""
    return folder.with_name(f".{folder.name}.partial")


Callback = Callable[[], object]
"""Called after each piece of a training checkpoint that is read, since reading may take long."""

_PIECE = 1 << 20
"""In bytes."""

_CHECKSUMS = "digests.json"
_checksums_file = TypeAdapter(dict[str, str])


def write_checksums(state: Path) -> None:
    """Writes the checksums of a training checkpoint's files beside them, as the last of its files."""
    digests = {file.name: _checksum(file) for file in sorted(state.iterdir()) if file.name != _CHECKSUMS}
    (state / _CHECKSUMS).write_text(json.dumps(digests, indent=2) + "\n")


def is_complete(state: Path, on_piece: Callback = lambda: None) -> bool:
    """True if every file of a training checkpoint matches its checksum. Reads all of them."""
    checksums = _read_checksums(state)
    return bool(checksums) and all(is_verified(state / file, on_piece) for file in checksums)


def is_verified(file: Path, on_piece: Callback = lambda: None) -> bool:
    try:
        return _read_checksums(file.parent).get(file.name) == _checksum(file, on_piece)
    except FileNotFoundError:
        return False


def _read_checksums(state: Path) -> dict[str, str]:
    """SHA-256 by file; empty if they were never written or are damaged."""
    try:
        return _checksums_file.validate_json((state / _CHECKSUMS).read_bytes())
    except (FileNotFoundError, ValidationError):
        return {}


def _checksum(path: Path, on_piece: Callback = lambda: None) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            on_piece()
    return digest.hexdigest()


def list_states(run_dirs: Iterable[RunDir]) -> list[Path]:
    """The training checkpoints, complete or not, furthest step first. Of two at the same step, that of the later run
    comes first."""
    states = [path for run in run_dirs for path in run.states.glob("step-*")]
    return sorted(states, key=lambda path: int(path.name.removeprefix("step-")))[::-1]


def latest_state(run_dirs: Iterable[RunDir], on_piece: Callback = lambda: None) -> tuple[Path | None, list[Path]]:
    """The furthest complete training checkpoint of these runs, and the damaged ones beyond it. The runs come in the
    order in which they were created."""
    damaged: list[Path] = []
    for state in list_states(run_dirs):
        if is_complete(state, on_piece):
            return state, damaged
        damaged.append(state)
    return None, damaged


def prune_states(run_dirs: Iterable[RunDir], keep: int, on_piece: Callback = lambda: None) -> None:
    """Deletes all but the `keep` furthest complete training checkpoints of these runs, and what killed processes left
    half-written or half-deleted. Runs that may still be going have been superseded."""
    runs = list(run_dirs)
    kept = 0
    for state in list_states(runs):
        if kept < keep and is_complete(state, on_piece):
            kept += 1
        else:
            delete_state(state)
    for run in runs:
        for folder in (run.path, run.checkpoints, run.states):
            for leftover in (*folder.glob(".*.partial"), *folder.glob(".*.gone")):
                _remove(leftover)


def delete_state(state: Path) -> None:
    # Renamed first, so that a half-deleted folder never looks like a training checkpoint.
    gone = state.with_name(f".{state.name}.gone")
    with contextlib.suppress(FileNotFoundError):
        state.rename(gone)
        _remove(gone)


def _remove(folder: Path) -> None:
    # Another attempt may write there or delete the same. The next call deletes what is left.
    shutil.rmtree(folder, ignore_errors=True)
