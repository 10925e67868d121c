"""What the training loop works with."""

from collections.abc import Sequence
from dataclasses import dataclass

from accelerate import Accelerator

from contract.order import rank_micro_batches, steps_per_epoch, total_steps
from contract.recipe import Recipe
from contract.run_dir import RunDir
from trainer.data.examples import TrainingData
from trainer.data.items import Item
from trainer.data.packing import PackedBatch, pack
from trainer.engines.engine import Engine
from trainer.event_writer import EventWriter
from trainer.ranks import stop_requested
from trainer.stop import Stop


@dataclass(frozen=True)
class TrainingRun:
    """Constant throughout the run, apart from the weights."""

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
    """Maximum examples in one pass through the model, on one rank."""

    @property
    def total_steps(self) -> int:
        return total_steps(self.recipe, len(self.data.train), self.effective_batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.data.train), self.effective_batch_size)

    def micro_batches(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """This rank's micro-batches of items that all ranks share. A model that takes documents one by one gets each
        item in its own micro-batch, so that every rank runs its model equally often."""
        size = self.micro_batch if self.engine.module.packed else 1
        return rank_micro_batches(items, self.accelerator.process_index, self.accelerator.num_processes, size)

    def pack(self, items: Sequence[Item], baseline: float = 0.0) -> PackedBatch:
        """A micro-batch on this rank's device."""
        return pack(items, self.engine.module.shares_prompts, baseline).to(self.accelerator.device)

    def should_abandon(self, together: bool) -> bool:
        """Whether to abandon the current work: if any rank must where the ranks do so `together`, else if this one
        must."""
        return self.stop_requested() if together else self.stop.requested

    def stop_requested(self) -> bool:
        """Whether any rank has a stop request. All ranks call it together."""
        return stop_requested(self.accelerator, self.stop)
