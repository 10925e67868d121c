"""What the entry point hands to the training run. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from contract.recipe import Recipe
from contract.run_dir import RunDir
from trainer.event_writer import EventWriter
from trainer.stop import Stop


@dataclass(frozen=True)
class RunSetup:
    """What a run starts from."""

    recipe: Recipe
    folder: RunDir
    report: EventWriter
    stop: Stop
    cache: Path
    """Folder of tokenised datasets, compiled layers and checks of packed rows."""
    resume: Path | None = None
    """State of an earlier run to continue from."""
