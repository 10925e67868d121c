"""The log probabilities of all answers before training: DPO and KTO hold the model to them.

They are those of the model that training starts from, before its first step: the base, since a new adapter changes
nothing yet, or the earlier adapter that is trained further. So they need no second model.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from contract.events import LogEvent, PhaseEvent
from contract.recipe import Recipe
from trainer.data.examples import Items, TrainingData
from trainer.data.items import Item, Pair, Rating
from trainer.data.packing import pack
from trainer.data.reference_cache import ReferenceCache, digest, model_digest
from trainer.data.tokens import TokenDocuments
from trainer.device import describe
from trainer.engines.engine import Engine
from trainer.model.pretrained import download
from trainer.ranks import max_over_ranks, stop_requested
from trainer.setup import RunSetup

_TOKENS_AT_ONCE = 8192
_GROUPS_OF_PART = 16
_VERSION = 1
"""Raised when this trainer gives other log probabilities than before, for the same model and tokens."""
_SECONDS_BETWEEN_REPORTS = 60


def with_reference(
    setup: RunSetup, data: TrainingData, engine: Engine, accelerator: Accelerator
) -> TrainingData | None:
    """The data with the log probabilities of their answers; None if a stop is requested first. All ranks call this
    together. What is there already is kept, and taken the next time."""
    began = time.perf_counter()
    key = digest(
        {
            "model": model_digest(setup.recipe, download(setup.recipe.model)),
            "data": data.digest,
            "version": _VERSION,
            "method": setup.recipe.method.learns,
            "formats": sorted({str(parameter.dtype) for parameter in engine.module.parameters()}),
            "path": repr(engine.module.path),
            "tokens_at_once": _tokens_at_once(setup.recipe, engine.module.packed),
            "engine": engine.name,
            "device": describe(accelerator.device),
        }
    )
    work = _Pass(setup, engine, accelerator, ReferenceCache(setup.cache, key))
    engine.module.eval()
    train = work.measure(data.train, "train")
    evaluation = None if train is None else work.measure(data.evaluation, "evaluation")
    engine.module.train()
    if train is None or evaluation is None:
        return None
    setup.report(PhaseEvent, name="reference", seconds=time.perf_counter() - began)
    return put_reference(data, {"train": train, "evaluation": evaluation})


def put_reference(data: TrainingData, reference: dict[str, torch.Tensor]) -> TrainingData:
    return replace(
        data,
        train=_with(data.train, reference["train"]),
        evaluation=_with(data.evaluation, reference["evaluation"]),
    )


def _with(items: Items, reference: torch.Tensor) -> Items:
    return items if isinstance(items, TokenDocuments) else items.with_reference(reference)


@dataclass(frozen=True)
class _Pass:
    setup: RunSetup
    engine: Engine
    accelerator: Accelerator
    cache: ReferenceCache

    def measure(self, items: Items, name: str) -> torch.Tensor | None:
        """[items, 2] fp32; None if a stop is requested first."""
        values = torch.zeros(len(items), 2)
        reported = time.perf_counter()
        for number, groups in enumerate(self._parts(items)):
            rows = range(groups[0].start, groups[-1].stop)
            part = f"{name}-{number}"
            found = self.cache.read(part)
            # Each machine has its own folder.
            if max_over_ranks(self.accelerator, found is None):
                found = self._measure_part(items, groups)
                if found is None:
                    return None
                if self.accelerator.is_local_main_process:
                    self.cache.write(part, found)
                if time.perf_counter() - reported > _SECONDS_BETWEEN_REPORTS:
                    reported = time.perf_counter()
                    message = f"log probabilities before training: {rows.stop:,} of {len(items):,} examples of {name}"
                    self.setup.report(LogEvent, level="info", message=message)
            assert found is not None
            values[rows.start : rows.stop] = found
        return values

    def _measure_part(self, items: Items, groups: Sequence[range]) -> torch.Tensor | None:
        """None if a stop is requested. Each rank takes every so many groups, and none more often than the others: they
        may wait for each other in each. The groups are the same for any number of ranks, and so are the values."""
        first = groups[0].start
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        values = torch.zeros(groups[-1].stop - first, 2, device=self.accelerator.device)
        for turn in range(0, len(groups), ranks):
            if stop_requested(self.accelerator, self.setup.stop):
                return None
            rows = groups[turn + rank] if turn + rank < len(groups) else range(0)
            some = [items[row] for row in rows]
            values[[row - first for row in rows]] = self._log_probabilities(some)
        summed: torch.Tensor = self.accelerator.reduce(values, "sum")
        return summed.cpu()

    def _log_probabilities(self, items: Sequence[Item]) -> torch.Tensor:
        """[items, 2]"""
        module, device = self.engine.module, self.accelerator.device
        if isinstance(module.objective.empty, Pair):
            batch = pack(items, module.shares_prompts).to(device)
            return self.engine.sums(batch, log_probabilities=True)[: 2 * len(items)].view(-1, 2)
        others = [item.of_other for item in items if isinstance(item, Rating)]
        return torch.stack(
            [self.engine.sums(pack(some).to(device), log_probabilities=True)[: len(items)] for some in (items, others)],
            dim=1,
        )

    def _parts(self, items: Items) -> Iterator[list[range]]:
        """Ranges of items that go through the model together, some at a time."""
        groups = self._groups(items)
        while part := list(itertools.islice(groups, _GROUPS_OF_PART)):
            yield part

    def _groups(self, items: Items) -> Iterator[range]:
        most = _tokens_at_once(self.setup.recipe, self.engine.module.packed)
        start = tokens = 0
        for row in range(len(items)):
            length = items[row].length
            if row > start and tokens + length > most:
                yield range(start, row)
                start, tokens = row, 0
            tokens += length
        if start < len(items):
            yield range(start, len(items))


def _tokens_at_once(recipe: Recipe, packed: bool) -> int:
    """The most that go through the model together: no more than in a micro-batch of training, where its size is known,
    and otherwise one item. The log probabilities of more could differ in their last digits."""
    batch = recipe.batch
    if batch.micro_batch_size == "auto" or not packed:
        return 0
    return min(_TOKENS_AT_ONCE, batch.micro_batch_size * recipe.method.documents * batch.max_length)
