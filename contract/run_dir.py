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
        """Out: the adapter after a step."""
        return self.checkpoints / f"step-{step:06d}"

    @property
    def states(self) -> Path:
        return self.path / "states"

    def state(self, step: int) -> Path:
        """Out: all that a run needs to go on from a step. The newest ones are kept, and none of a run that is done."""
        return self.states / f"step-{step:06d}"


def last_state(run_dirs: Iterable[RunDir]) -> Path | None:
    """The state of these runs that has come furthest."""
    states = (path for run in run_dirs for path in run.states.glob("step-*"))
    return max(states, key=lambda path: path.name, default=None)
