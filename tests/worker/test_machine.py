import os

import pytest

from contract.machine import Gpu
from worker.machine import detect, has_bf16, visible

GPUS = [
    Gpu(uuid=f"GPU-{number}0000000-aaaa", name=f"number {number}", memory_bytes=1, compute_capability=(9, 0))
    for number in range(3)
]


def test_this_machine_can_be_described() -> None:
    machine = detect(os.environ)
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.describe()


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", True),
        ("processor\t: 0\nflags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f\nbugs\t\t: bf16\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 sve\nCPU implementer\t: 0x41\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_a_cpu_tells_whether_it_computes_in_bf16(cpuinfo: str, expected: bool) -> None:
    assert has_bf16(cpuinfo) is expected


@pytest.mark.parametrize(
    ("chosen", "numbers"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2, 0", [2, 0]),
        ("1,7,0", [1]),
        ("GPU-2,GPU-00000000-aaaa", [2, 0]),
        ("GPU-", []),
        ("none", []),
    ],
)
def test_a_machine_has_the_gpus_that_its_trainers_see(chosen: str | None, numbers: list[int]) -> None:
    assert visible(GPUS, chosen) == [GPUS[number] for number in numbers]
