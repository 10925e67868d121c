"""What the loop works with."""

from collections.abc import Sequence
from dataclasses import dataclass

from accelerate import Accelerator

from contract.order import rank_share, steps_per_epoch, total_steps
from contract.recipe import Recipe
from contract.run_dir import RunDir
from dataset.document import Document
from trainer.data.examples import Data
from trainer.engines.engine import Engine
from trainer.ranks import asked_to_stop
from trainer.report import Report
from trainer.stop import Stop


@dataclass(frozen=True)
class Run:
    """Nothing of it changes but the weights."""

    recipe: Recipe
    folder: RunDir
    accelerator: Accelerator
    report: Report
    stop: Stop
    data: Data
    engine: Engine
    window: int
    """Examples of one optimizer step, on all ranks."""
    micro_batch: int
    """Examples in one pass through the model, on one rank, at most."""

    @property
    def total_steps(self) -> int:
        return total_steps(self.recipe, len(self.data.train), self.window)

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.data.train), self.window)

    def micro_batches(self, documents: Sequence[Document]) -> list[Sequence[Document]]:
        """This rank's share of what all ranks work on together. A model that takes its documents one by one has each
        in a micro-batch of its own: so the ranks go through their models equally often."""
        size = self.micro_batch if self.engine.module.packed else 1
        return rank_share(documents, self.accelerator.process_index, self.accelerator.num_processes, size)

    def gives_up(self, together: bool) -> bool:
        """Whether to leave what this rank is at: by the word of all ranks where they do it `together`."""
        return self.asked_to_stop() if together else self.stop.asked

    def asked_to_stop(self) -> bool:
        """All ranks together."""
        return asked_to_stop(self.accelerator, self.stop)
