import mmap
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.recipe import Recipe
from dataset.document import Document
from tests.trainer.adapters import documents_of
from trainer.data.items import Item
from trainer.data.packing import pack
from trainer.device import peak_memory
from trainer.micro_batch import (
    _free_in_cgroup,
    forecast,
    free_memory,
    largest_micro_batch,
    reset_peak_memory,
    worst_case_items,
)
from trainer.model.base_model import load_model

CPU = torch.device("cpu")
MEGABYTES = 2**20
sizes = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=12)


def document(length: int, targets: int) -> Document:
    targets = min(targets, length)
    return Document([7] * (length + 1), [False] + [True] * targets + [False] * (length - targets))


@given(
    fixed=st.integers(0, 10**9), per_example=st.integers(0, 10**9), last=st.integers(2, 64), size=st.integers(2, 128)
)
def test_linear_growth_is_forecast_exactly(fixed: int, per_example: int, last: int, size: int) -> None:
    growths = {n: fixed + n * per_example for n in (last // 2, last)}
    assert forecast(growths, max(size, last)) == pytest.approx(fixed + max(size, last) * per_example)


def test_one_probe_predicts_twice_the_memory() -> None:
    assert forecast({0: 0, 1: 100}, 2) == 200


def test_reused_memory_promises_no_smaller_need() -> None:
    assert forecast({1: 500, 2: 300}, 4) == 300


@given(sizes, st.integers(1, 12), st.data())
def test_no_documents_take_more_than_the_worst_case(
    shapes: list[tuple[int, int]], count: int, data: st.DataObject
) -> None:
    documents = [document(*shape) for shape in shapes]
    worst = worst_case_items(documents, count)
    assert len(worst) == min(count, len(documents))
    assert not any(part.supervised[0] for part in documents_of(worst))
    chosen = data.draw(st.permutations(documents))
    for size in range(1, len(worst) + 1):
        for measure in ("length", "targets"):
            most = sum(getattr(part, measure) for part in worst[:size])
            assert sum(getattr(part, measure) for part in chosen[:size]) <= most


class Allocating:
    """A probe that takes so much memory for each document, and keeps the sizes that were tried."""

    def __init__(self, bytes_each: int) -> None:
        self.bytes_each = bytes_each
        self.tried: list[int] = []

    def __call__(self, documents: Sequence[Document]) -> None:
        self.tried.append(len(documents))
        touch(len(documents) * self.bytes_each)


def touch(size: int) -> None:
    """Takes so many bytes from the system, and gives them back. Not by malloc, which uses what it has kept first."""
    with mmap.mmap(-1, size) as memory:
        memory[:: mmap.PAGESIZE] = bytes(-(-size // mmap.PAGESIZE))


@pytest.mark.parametrize(
    ("free", "found"), [(10, 1), (90, 1), (110, 2), (190, 2), (210, 4), (290, 4), (320, 6), (10_000, 6)]
)
def test_micro_batch_grows_within_the_memory(free: int, found: int) -> None:
    probe = Allocating(40 * MEGABYTES)
    documents = [document(4, 1)] * 6
    assert largest_micro_batch(documents, probe, lambda own: own, CPU, free * MEGABYTES) == found
    assert probe.tried == [size for size in (1, 2, 4, 6) if size <= found]


def test_rank_with_less_memory_decides_for_all() -> None:
    probe = Allocating(40 * MEGABYTES)
    documents = [document(4, 1)] * 6
    # The other rank would be full with more than two.
    answers = iter([0.5, 1.0])
    assert largest_micro_batch(documents, probe, lambda own: max(own, next(answers)), CPU, 10_000 * MEGABYTES) == 2


def test_peak_of_a_cpu_is_forgotten() -> None:
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    touch(64 * MEGABYTES)
    assert peak_memory(CPU) > before + 56 * MEGABYTES
    reset_peak_memory(CPU)
    assert peak_memory(CPU) < before + 8 * MEGABYTES


@pytest.mark.exhaustive
@pytest.mark.slow
def test_real_micro_batch_stays_within_memory(model: Path) -> None:
    """In a process of its own, whose memory no other test has used, and that gives back what it frees."""
    result = subprocess.run(
        [sys.executable, "-c", f"from {__name__} import print_micro_batches; print_micro_batches({str(model)!r})"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"},
    )
    found = [tuple(map(int, line.split())) for line in result.stdout.splitlines()]
    assert [free for free, *_ in found] == [12, 40, 80, 10_000], result.stderr
    sizes = [size for _, size, _ in found]
    assert 1 <= sizes[0] < sizes[1] < sizes[2] < sizes[3] == 24
    assert all(growth < free for free, _, growth in found)


def print_micro_batches(model: str) -> None:
    """One line each: the free megabytes, the micro-batch, and the megabytes that it then takes."""
    recipe = Recipe.model_validate({"model": model, "dataset": "none"})
    module = load_model(recipe, torch.float32, CPU).train()
    documents = worst_case_items([document(400 - n, 40) for n in range(100)], 24)

    def probe(some: Sequence[Item]) -> None:
        module(pack(some))[0].backward()
        module.zero_grad()

    for free in (12, 40, 80, 10_000):
        micro_batch = largest_micro_batch(documents, probe, lambda own: own, CPU, free * MEGABYTES)
        reset_peak_memory(CPU)
        before = peak_memory(CPU)
        probe(documents[:micro_batch])
        print(free, micro_batch, (peak_memory(CPU) - before) // MEGABYTES)  # noqa: T201


def test_ranks_of_a_machine_share_its_memory() -> None:
    assert 0 < free_memory(CPU, local_ranks=4) < free_memory(CPU, local_ranks=1)


def test_every_parent_control_group_sets_a_limit(tmp_path: Path) -> None:
    for name, limit, used, files in (("a", "1000", 700, 50), ("a/b", "max", 0, 0), ("a/b/c", "900", 200, 10)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {files}\nactive_file 2\n")
    assert _free_in_cgroup(tmp_path, "a/b/c") == [710, 350]
    assert _free_in_cgroup(tmp_path, "") == []
