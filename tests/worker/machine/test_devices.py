import inspect
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from contract.machine import ExternalProcess, Machine
from tests.support.fake_nvml import FOLDER, Have, stand_in
from tests.support.fake_nvml import pynvml as fake_pynvml
from worker.machine.devices import environment, external_processes, memory_used
from worker.machine.inventory import detect

GIB = 2**30
UNSEEN_PID = 2**22 + 1
"""Greater than any of Linux."""
CPU = Machine(gpus=[], cores=8, cpu_bf16=False, slots=4)


@pytest.fixture
def have(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Have:
    return stand_in(monkeypatch, tmp_path)


@pytest.fixture
def stranger() -> Iterator[int]:
    """The pid of a process called "cat"."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.read(1)  # now it has its name
        yield process.pid


def using(pid: int, gib: float | None, kind: str = "compute") -> dict[str, object]:
    return {"pid": pid, "memory": None if gib is None else int(gib * GIB), "kind": kind}


def held(leased: bool = False) -> list[ExternalProcess]:
    """By whom the first GPU is."""
    return external_processes(detect({}, slots=1), lambda pid: pid == os.getpid(), {0} if leased else set())[0]


def test_foreign_compute_process_holds_its_gpu(have: Have, stranger: int) -> None:
    have({"uuid": "GPU-a", "processes": [using(stranger, 0.5)]}, {"uuid": "GPU-b"})
    found = external_processes(detect({}, slots=1), lambda pid: False, set())
    assert found == {0: [ExternalProcess(pid=stranger, name="cat", memory_bytes=GIB // 2)], 1: []}


def test_own_processes_hold_nothing(have: Have, stranger: int) -> None:
    have({"uuid": "GPU-a", "processes": [using(os.getpid(), 3), using(stranger, 3)]})
    assert [holder.pid for holder in held()] == [stranger]


def test_gpus_have_the_numbers_that_trainers_see(have: Have, stranger: int) -> None:
    have({"uuid": "GPU-a", "processes": [using(stranger, 3)]}, {"uuid": "GPU-b"})
    machine = detect({"CUDA_VISIBLE_DEVICES": "1,0"}, slots=1)
    assert {number: bool(found) for number, found in external_processes(machine, lambda pid: False, set()).items()} == {
        0: False,
        1: True,
    }


def test_changed_use_is_seen_at_once(have: Have, stranger: int) -> None:
    have({"uuid": "GPU-a"})
    assert held() == []
    have({"uuid": "GPU-a", "processes": [using(stranger, 3)]})
    assert [holder.pid for holder in held()] == [stranger]


def test_invisible_process_on_a_leased_gpu_is_ours(have: Have) -> None:
    have({"uuid": "GPU-a", "processes": [using(UNSEEN_PID, 3)]})
    assert held(leased=True) == []
    assert held() == [
        ExternalProcess(pid=UNSEEN_PID, name="a process that cannot be seen from here", memory_bytes=3 * GIB)
    ]


def test_visible_process_can_hold_a_leased_gpu(have: Have, stranger: int) -> None:
    have({"uuid": "GPU-a", "processes": [using(os.getpid(), 3), using(stranger, 3)]})
    assert [holder.pid for holder in held(leased=True)] == [stranger]


def test_unexplained_memory_holds_an_unleased_gpu(have: Have) -> None:
    have({"uuid": "GPU-a", "memory_used": 2 * GIB})
    assert held() == [ExternalProcess(pid=None, name="a process that cannot be seen from here", memory_bytes=2 * GIB)]
    assert held(leased=True) == []


def test_driver_memory_holds_nothing(have: Have) -> None:
    have({"uuid": "GPU-a", "memory_used": GIB // 2})
    assert held() == []


def test_own_memory_holds_nothing(have: Have) -> None:
    have({"uuid": "GPU-a", "memory_used": 2 * GIB, "processes": [using(os.getpid(), 2)]})
    assert held() == []


@pytest.mark.parametrize(("gib", "holds"), [(0.9, False), (None, False), (1, True)])
def test_small_desktop_leaves_its_gpu_to_jobs(have: Have, stranger: int, gib: float | None, holds: bool) -> None:
    have({"uuid": "GPU-a", "memory_used": 2 * GIB, "processes": [using(stranger, gib, "graphics")]})
    assert bool(held()) is holds


def test_drawing_and_computing_holds_a_gpu_once(have: Have, stranger: int) -> None:
    have({"uuid": "GPU-a", "processes": [using(stranger, 1, "graphics"), using(stranger, 1)]})
    assert [holder.pid for holder in held()] == [stranger]


def test_instance_of_a_divided_gpu_is_held_alone(have: Have, stranger: int) -> None:
    have({"uuid": "GPU-a", "mig": [{"uuid": "MIG-x"}, {"uuid": "MIG-y", "processes": [using(stranger, 1)]}]})
    found = external_processes(detect({}, slots=1), lambda pid: False, set())
    assert [len(found[number]) for number in (0, 1)] == [0, 1]


def test_unresponsive_gpu_is_not_leased(have: Have, caplog: pytest.LogCaptureFixture) -> None:
    have({"uuid": "GPU-lost"}, {"uuid": "GPU-b"})
    machine = detect({}, slots=1)
    have({"uuid": "GPU-lost", "errors": {"*": "NVMLError_GpuIsLost"}}, {"uuid": "GPU-b"})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found = external_processes(machine, lambda pid: True, {0})
    assert found == {
        0: [ExternalProcess(pid=None, name="the driver does not answer: GpuIsLost", memory_bytes=None)],
        1: [],
    }
    assert [record.getMessage() for record in caplog.records] == ["the driver of GPU-lost does not answer: GpuIsLost"]


def test_without_its_driver_no_gpu_is_given_out(have: Have, monkeypatch: pytest.MonkeyPatch) -> None:
    have({"uuid": "GPU-a"}, {"uuid": "GPU-b"})
    machine = detect({}, slots=1)
    monkeypatch.setattr("worker.machine.inventory._initialised", False)
    monkeypatch.delenv("FAKE_NVML")
    assert all(external_processes(machine, lambda pid: True, set()).values())


@pytest.mark.parametrize("error", ["FunctionNotFound", "NoPermission", "NotSupported", "Unknown"])
def test_driver_without_processes_holds_no_gpu(have: Have, error: str) -> None:
    cannot = {
        f"nvmlDeviceGet{name}": f"NVMLError_{error}"
        for name in ("ComputeRunningProcesses_v3", "GraphicsRunningProcesses_v3")
    }
    have({"uuid": "GPU-a", "errors": cannot})
    assert held() == []
    have({"uuid": "GPU-a", "errors": cannot, "memory_used": 2 * GIB})
    assert len(held()) == 1


def test_driver_without_memory_holds_no_gpu(have: Have, stranger: int) -> None:
    cannot = {"nvmlDeviceGetMemoryInfo": "NVMLError_NotSupported"}
    have({"uuid": "GPU-a", "errors": cannot})
    assert held() == []
    have({"uuid": "GPU-a", "errors": cannot, "processes": [using(stranger, 1)]})
    assert len(held()) == 1


def test_cpu_machine_asks_no_driver(have: Have) -> None:
    before = fake_pynvml.times_initialised
    assert external_processes(CPU, lambda pid: False, {0}) == {}
    assert memory_used(CPU, [0, 1]) == {}
    assert fake_pynvml.times_initialised == before


def test_memory_is_reported_of_responsive_gpus(have: Have, caplog: pytest.LogCaptureFixture) -> None:
    def gpus(*errors: dict[str, str]) -> list[dict[str, object]]:
        return [
            {"uuid": f"GPU-{number}", "memory_used": number * GIB, "errors": error}
            for number, error in enumerate(errors)
        ]

    have(*gpus({}, {}, {}, {}))
    machine = detect({}, slots=1)
    assert memory_used(machine, [2, 0]) == {2: 2 * GIB, 0: 0}
    untold = {"nvmlDeviceGetMemoryInfo": "NVMLError_NotSupported"}
    have(*gpus({}, untold, {"*": "NVMLError_GpuIsLost"}, {}))
    with caplog.at_level(logging.WARNING):
        assert memory_used(machine, [0, 1, 2, 3]) == {0: 0, 3: 3 * GIB}
    assert "GPU-2 does not answer" in caplog.text


def test_trainer_sees_its_gpus_in_order(have: Have) -> None:
    have(*({"uuid": f"GPU-{number}"} for number in range(3)))
    machine = detect({}, slots=2)
    assert environment(machine, [2, 0]) == {"CUDA_VISIBLE_DEVICES": "GPU-2,GPU-0"}
    assert environment(machine, []) == {"CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize(
    ("cores", "slots", "numbers", "given"),
    [
        ({0, 1}, 1, [0], "0,1"),
        ({0, 1}, 2, [0], "0"),
        ({0, 1}, 2, [1], "1"),
        ({0, 1}, 2, [0, 1], "0,1"),
        ({2, 3, 5, 7, 11}, 2, [0], "2,3"),
        ({2, 3, 5, 7, 11}, 2, [1], "5,7,11"),
        ({4, 6}, 3, [0], "4"),
        ({4, 6}, 3, [1], "4"),
        ({4, 6}, 3, [2], "6"),
        ({4, 6}, 3, [0, 1], "4"),
    ],
)
def test_slots_divide_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], slots: int, numbers: list[int], given: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores)
    machine = Machine(gpus=[], cores=len(cores), cpu_bf16=False, slots=slots)
    assert environment(machine, numbers) == {"FINETUNED_CORES": given}


def test_forks_open_the_driver_for_themselves(have: Have, stranger: int) -> None:
    have({"uuid": "GPU-a", "processes": [using(stranger, 3)]})
    code = """
import os, pynvml
from worker.machine.devices import external_processes
from worker.machine.inventory import detect

def names():
    return [holder.name for holder in external_processes(detect({}, slots=1), lambda pid: False, set())[0]]

print(names(), names(), pynvml.times_initialised, flush=True)
if os.fork() == 0:
    print(pynvml.times_initialised, names(), pynvml.times_initialised, flush=True)
    os._exit(0)
os.wait()
print(pynvml.times_initialised, names(), pynvml.times_initialised)
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.splitlines() == ["['cat'] ['cat'] 1", "0 ['cat'] 1", "0 ['cat'] 1"]


def test_fake_driver_has_only_real_names() -> None:
    own = {"RESERVED", "times_initialised", "Any", "Path", "SimpleNamespace", "json", "os"}
    for name, value in vars(fake_pynvml).items():
        if name.startswith("_") or name in own:
            continue
        real = getattr(pynvml, name)
        if inspect.isfunction(value):
            assert list(inspect.signature(value).parameters) == list(inspect.signature(real).parameters), name
        elif inspect.isclass(value):
            assert issubclass(real, pynvml.NVMLError)
        else:
            assert value == real, name
