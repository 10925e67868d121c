"""The files of one run folder. Each attempt at a job has a folder of its own, so a stale attempt can spoil nothing."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


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
    def adapter(self) -> Path:
        """Out: the final adapter, as PEFT saves it."""
        return self.path / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """Out: the adapter after a step, as PEFT saves it, and beside it, while it is kept, the state to go on from."""
        return self.checkpoints / f"step-{step:06d}"


def state(checkpoint: Path) -> Path:
    """What a checkpoint needs to be gone on from, beside its adapter: optimizer, random numbers, position."""
    return checkpoint / "state"


def last_resumable(run_dirs: Iterable[RunDir]) -> Path | None:
    """The checkpoint of these runs that has come furthest, among those with their state."""
    checkpoints = (path for run in run_dirs for path in run.checkpoints.glob("step-*") if state(path).is_dir())
    return max(checkpoints, key=lambda path: path.name, default=None)
