"""What the loop works with."""

from collections.abc import Sequence
from dataclasses import dataclass

from accelerate import Accelerator

from contract.order import rank_micro_batches, steps_per_epoch, total_steps
from contract.recipe import Recipe
from contract.run_dir import RunDir
from dataset.document import Document
from trainer.data.examples import TrainingData
from trainer.engines.engine import Engine
from trainer.ranks import stop_requested
from trainer.report import EventWriter
from trainer.stop import Stop


@dataclass(frozen=True)
class TrainingRun:
    """Nothing of it changes but the weights."""

    recipe: Recipe
    folder: RunDir
    accelerator: Accelerator
    report: EventWriter
    stop: Stop
    data: TrainingData
    engine: Engine
    effective_batch_size: int
    """Examples of one optimizer step, on all ranks."""
    micro_batch: int
    """Examples in one pass through the model, on one rank, at most."""

    @property
    def total_steps(self) -> int:
        return total_steps(self.recipe, len(self.data.train), self.effective_batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.data.train), self.effective_batch_size)

    def micro_batches(self, documents: Sequence[Document]) -> list[Sequence[Document]]:
        """This rank's share of what all ranks work on together. A model that takes its documents one by one has each
        in a micro-batch of its own: so the ranks go through their models equally often."""
        size = self.micro_batch if self.engine.module.packed else 1
        return rank_micro_batches(documents, self.accelerator.process_index, self.accelerator.num_processes, size)

    def should_abandon(self, together: bool) -> bool:
        """Whether to leave what this rank is at: by the word of all ranks where they do it `together`."""
        return self.stop_requested() if together else self.stop.requested

    def stop_requested(self) -> bool:
        """All ranks together."""
        return stop_requested(self.accelerator, self.stop)
