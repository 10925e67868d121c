import logging
import os
from pathlib import Path

import pytest

from contract.machine import Gpu, has_bf16
from tests.support.fake_nvml import Have, stand_in
from worker.machine.inventory import detect, machine_memory_used, memory_limit, memory_used, visible


def gpu(uuid: str) -> Gpu:
    return Gpu(uuid=uuid, name="a GPU", memory_bytes=1, compute_capability=(9, 0))


CARDS = [
    [gpu("GPU-00000000-aaaa")],
    [gpu("GPU-10000000-aaaa")],
    [gpu("GPU-20000000-aaaa")],
    [gpu("MIG-30000000-aaaa"), gpu("MIG-31000000-aaaa")],
]
GPUS = [gpu for card in CARDS for gpu in card]


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Have:
    return stand_in(monkeypatch, tmp_path)


def test_this_machine_can_be_described() -> None:
    machine = detect(os.environ, slots=2)
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.slots == 2
    assert machine.describe()
    assert machine.memory_bytes is not None
    assert machine.memory_bytes > 2**28


def test_machine_memory_respects_control_groups(tmp_path: Path) -> None:
    meminfo, own = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text("MemTotal:       16 kB\nMemFree:  3 kB\n")
    own.write_text("0::/a/b\n")
    groups = tmp_path / "groups"
    (groups / "a" / "b").mkdir(parents=True)
    assert memory_limit(meminfo, groups, own) == 16 * 1024
    (groups / "a" / "b" / "memory.max").write_text("max\n")
    (groups / "a" / "memory.max").write_text("9000\n")
    assert memory_limit(meminfo, groups, own) == 9000


def test_used_memory_is_of_what_bounds_it(tmp_path: Path) -> None:
    meminfo, own = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text("MemTotal:       16 kB\nMemFree:  3 kB\nMemAvailable:    6 kB\n")
    own.write_text("0::/a/b\n")
    group = tmp_path / "groups" / "a"
    (group / "b").mkdir(parents=True)
    assert memory_used(meminfo, group.parent, own) == 10 * 1024
    (group / "memory.max").write_text("9000\n")
    (group / "memory.current").write_text("8000\n")
    (group / "memory.stat").write_text("anon 5000\ninactive_file 2500\nactive_file 500\n")
    assert memory_used(meminfo, group.parent, own) == 5500


def test_this_machine_uses_some_of_its_memory() -> None:
    assert 0 < machine_memory_used() < (detect(os.environ, slots=1).memory_bytes or 0)


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
def test_cpu_tells_whether_it_computes_in_bf16(cpuinfo: str, expected: bool) -> None:
    assert has_bf16(cpuinfo) is expected


@pytest.mark.parametrize(
    ("chosen", "numbers"),
    [
        (None, [0, 1, 2, 3, 4]),
        ("", []),
        ("-1", []),
        ("2, 0", [2, 0]),
        ("1,7,0", [1]),
        ("0,0", []),
        ("0,GPU-0", []),
        ("GPU-2,GPU-00000000-aaaa", [2, 0]),
        ("GPU-", []),
        ("MIG-31,1", [4, 1]),
        ("MIG-3", []),
        ("3", [3, 4]),
        ("none", []),
    ],
)
def test_machine_has_the_gpus_that_its_trainers_see(chosen: str | None, numbers: list[int]) -> None:
    assert visible(CARDS, chosen) == [GPUS[number] for number in numbers]


def test_machine_has_the_gpus_of_the_driver(have: Have) -> None:
    have({"uuid": "GPU-a", "name": "Tesla T4", "memory_total": 2**34, "capability": [7, 5]}, {"uuid": "GPU-b"})
    first, second = detect({}, slots=1).gpus
    assert first == Gpu(uuid="GPU-a", name="Tesla T4", memory_bytes=2**34, compute_capability=(7, 5))
    assert second.uuid == "GPU-b"


def test_of_a_divided_gpu_trainers_get_the_instances(have: Have) -> None:
    instances = [{"uuid": f"MIG-{name}", "name": "A100 MIG 3g.20gb", "memory_total": 20 * 2**30} for name in "xy"]
    divided = {"uuid": "GPU-a", "capability": [8, 0], "mig": [instances[0], None, instances[1]]}
    have(divided, {"uuid": "GPU-b"}, {"uuid": "GPU-c", "mig": []})
    gpus = detect({}, slots=1).gpus
    assert [gpu.uuid for gpu in gpus] == ["MIG-x", "MIG-y", "GPU-b"]
    assert gpus[0] == Gpu(uuid="MIG-x", name="A100 MIG 3g.20gb", memory_bytes=20 * 2**30, compute_capability=(8, 0))


def test_gpu_of_an_old_driver_is_not_divided(have: Have) -> None:
    have({"uuid": "GPU-a", "errors": {"nvmlDeviceGetMigMode": "NVMLError_FunctionNotFound"}})
    assert [gpu.uuid for gpu in detect({}, slots=1).gpus] == ["GPU-a"]


def test_unresponsive_gpu_keeps_its_number(have: Have, caplog: pytest.LogCaptureFixture) -> None:
    have({"uuid": "GPU-a", "errors": {"*": "NVMLError_GpuIsLost"}}, {"uuid": "GPU-b"})
    with caplog.at_level(logging.WARNING):
        assert [gpu.uuid for gpu in detect({"CUDA_VISIBLE_DEVICES": "1"}, slots=1).gpus] == ["GPU-b"]
    assert "GPU 0 does not answer" in caplog.text


def test_gpu_may_share_the_memory_of_its_machine(have: Have) -> None:
    have({"uuid": "GPU-a", "errors": {"nvmlDeviceGetMemoryInfo": "NVMLError_NotSupported"}})
    assert detect({}, slots=1).gpus[0].memory_bytes is None


def test_missing_driver_is_logged_and_no_fault(
    have: Have, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("FAKE_NVML")
    with caplog.at_level(logging.INFO):
        assert detect({}, slots=1).gpus == []
    (record,) = caplog.records
    assert (record.levelname, "libnvidia-ml.so.1" in record.message) == ("INFO", True)
