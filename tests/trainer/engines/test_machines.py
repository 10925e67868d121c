"""Two machines, each in a network of its own, with a torchrun of its own that meets the other's at the head."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.events import DoneEvent, Event, MetricEvent, StartedEvent, parse_event
from tests.support.network import NetworkMachine, two_machines
from tests.trainer.in_process_trainer import train_here
from worker.launchers.torchrun import Rendezvous, launcher

pytestmark = pytest.mark.slow

Machines = tuple[NetworkMachine, NetworkMachine]


@pytest.fixture
def machines() -> Iterator[Machines]:
    with two_machines() as machines:
        yield machines


def launch(machines: Machines, head: NetworkMachine, recipe: dict[str, Any], run_dir: Path) -> list[Any]:
    """A torchrun on each of the machines, which share the run folder."""
    run_dir.mkdir()
    (run_dir / "recipe.json").write_text(json.dumps(recipe | {"resources": {"nodes": 2}}))
    return [started(machine, head, run_dir) for machine in machines]


def started(machine: NetworkMachine, head: NetworkMachine, run_dir: Path) -> subprocess.Popen[bytes]:
    meeting = Rendezvous(2, f"{head.address}:29500", "run", machine.address, machine is head)
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": machine.interface}
    with (run_dir / f"{machine.name}.log").open("wb") as log:
        command = machine.command([*launcher(1, meeting), str(run_dir)])
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def events_in(run_dir: Path) -> list[Event]:
    return [parse_event(line) for line in (run_dir / "events.jsonl").read_bytes().splitlines()]


def logs(run_dir: Path) -> str:
    return "\n".join(log.read_text() for log in run_dir.glob("*.log"))


@pytest.mark.parametrize(
    "parallel",
    [{}, pytest.param({"engine": "deepspeed"}, marks=pytest.mark.exhaustive)],
    ids=["ddp", "zero-2"],
)
def test_two_machines_train_as_one_does(
    parallel: dict[str, Any],
    machines: Machines,
    recipe: dict[str, Any],
    tmp_path: Path,
    cache: Path,
) -> None:
    recipe["batch"] = {"micro_batch_size": 2, "effective_batch_size": 5}
    alone = train_here(recipe, tmp_path / "alone", cache)

    run_dir = tmp_path / "together"
    launchers = launch(machines, machines[0], recipe | {"parallel": parallel}, run_dir)
    assert [process.wait(120) for process in launchers] == [0, 0], logs(run_dir)
    assert (run_dir / "adapter" / "adapter_model.safetensors").is_file()
    events = events_in(run_dir)
    (started,) = (event for event in events if isinstance(event, StartedEvent))
    assert started.world_size == 2
    losses = [[e.loss for e in run if isinstance(e, MetricEvent)] for run in (events, alone.events)]
    assert len(losses[1]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_dead_head_launcher_ends_both_machines(
    number: int, machines: Machines, recipe: dict[str, Any], tmp_path: Path
) -> None:
    """The head is the second here: rank 0 is on the machine with the first address, whichever is the head."""
    run_dir = tmp_path / "run"
    first, second = machines
    other, head = launch(machines, second, recipe | {"schedule": {"epochs": 1000}}, run_dir)
    deadline = time.monotonic() + 120
    while not ((run_dir / "events.jsonl").exists() and '"type":"metric"' in (run_dir / "events.jsonl").read_text()):
        assert time.monotonic() < deadline, logs(run_dir)
        time.sleep(0.01)
    (rank_zero,) = (pid for pid in first.processes() if pid != other.pid)
    assert b"\0RANK=0\0" in Path(f"/proc/{rank_zero}/environ").read_bytes()
    head.send_signal(number)
    for process in (other, head):
        process.wait(30)  # with any code: the other's may find its ranks done first, or the head gone
    done = events_in(run_dir)[-1]
    assert isinstance(done, DoneEvent)
    assert not done.completed
    assert [path.name for path in (run_dir / "states").iterdir()] == [f"step-{done.step:06}"]
    while first.processes() or second.processes():
        assert time.monotonic() < deadline, "a rank outlives its run"
        time.sleep(0.01)
