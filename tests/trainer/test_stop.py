"""The trainer is stopped, or loses its launcher: real processes, and torchrun."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contract.events import CheckpointEvent, DoneEvent, Event, parse_event
from tests.trainer.trainer_process import command

pytestmark = pytest.mark.slow


@contextmanager
def started(recipe: dict[str, Any], run_dir: Path, ranks: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    (run_dir / "recipe.json").write_text(json.dumps(recipe))
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    with subprocess.Popen(
        command(run_dir, ranks), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(run_dir: Path, text: str) -> None:
    events = run_dir / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (events.exists() and text in events.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def events_in(run_dir: Path) -> list[Event]:
    return [parse_event(line) for line in (run_dir / "events.jsonl").read_bytes().splitlines()]


@pytest.fixture
def endless(recipe: dict[str, Any]) -> dict[str, Any]:
    return recipe | {"schedule": {"epochs": 1000}}


@pytest.mark.parametrize(
    ("ranks", "number"),
    [
        pytest.param(1, signal.SIGTERM, marks=pytest.mark.exhaustive),
        pytest.param(1, signal.SIGINT, marks=pytest.mark.exhaustive),
        (2, signal.SIGTERM),
        pytest.param(2, signal.SIGINT, marks=pytest.mark.exhaustive),
    ],
)
def test_signal_ends_the_run_with_a_checkpoint(
    ranks: int, number: int, endless: dict[str, Any], tmp_path: Path
) -> None:
    with started(endless | {"evaluation": {"fraction": 0.25}}, tmp_path, ranks) as process:
        wait_for(tmp_path, '"type":"metric"')
        process.send_signal(number)
        exit_code = process.wait(timeout=25)
    assert ranks > 1 or exit_code == 0  # torchrun reports the signal
    saved, done = events_in(tmp_path)[-2:]
    assert isinstance(saved, CheckpointEvent)
    assert isinstance(done, DoneEvent)
    assert not saved.final
    assert not done.completed
    assert saved.step == done.step > 0
    assert (tmp_path / saved.path / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "adapter").exists()
    assert not (tmp_path / "error.json").exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("ranks", "parallel"),
    [(1, {}), (2, {"engine": "deepspeed", "zero_stage": 3})],
    ids=["1 rank", "zero-3"],
)
def test_sigterm_before_the_first_step_leaves_done(
    ranks: int, parallel: dict[str, Any], recipe: dict[str, Any], tmp_path: Path
) -> None:
    with started(recipe | {"parallel": parallel}, tmp_path, ranks) as process:
        # A rank that does not listen yet just dies, and another waits for it until torchrun kills it.
        wait_for(tmp_path, '"name":"imports"' if ranks > 1 else "")
        process.send_signal(signal.SIGTERM)
        exit_code = process.wait(timeout=60)  # it imports torch first
    assert ranks > 1 or exit_code == 0
    assert_stopped_before_the_first_step(tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_while_reading_ends_the_run(
    ranks: int, recipe: dict[str, Any], long_dataset: Path, tmp_path: Path
) -> None:
    with started(recipe | {"dataset": str(long_dataset)}, tmp_path, ranks) as process:
        wait_for(tmp_path, '"name":"model"')
        process.send_signal(signal.SIGTERM)
        exit_code = process.wait(timeout=10)
    assert ranks > 1 or exit_code == 0
    assert_stopped_before_the_first_step(tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("ranks", "parallel"),
    [
        (1, {}),
        (2, {}),
        (2, {"engine": "deepspeed"}),
        (2, {"engine": "deepspeed", "zero_stage": 3}),
        (2, {"engine": "fsdp"}),
    ],
    ids=["1 rank", "2 ranks", "zero-2", "zero-3", "fsdp"],
)
def test_sigterm_in_a_long_window_abandons_it(
    ranks: int, parallel: dict[str, Any], recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe["parallel"] = parallel
    rows = Path(recipe["dataset"]).read_text()
    Path(recipe["dataset"]).write_text(rows * 500)
    recipe["batch"] = {"micro_batch_size": 1, "gradient_accumulation_steps": 6000 // ranks}
    with started(recipe, tmp_path, ranks) as process:
        wait_for(tmp_path, '"type":"started"')
        time.sleep(0.5)  # into the window, which takes half a minute
        process.send_signal(signal.SIGTERM)
        exit_code = process.wait(timeout=10)
    assert ranks > 1 or exit_code == 0
    assert_stopped_before_the_first_step(tmp_path)


def assert_stopped_before_the_first_step(run_dir: Path) -> None:
    done = events_in(run_dir)[-1]
    assert isinstance(done, DoneEvent)
    assert (done.step, done.completed, done.train_loss) == (0, False, None)
    assert not (run_dir / "checkpoints").exists()
    assert not (run_dir / "error.json").exists()


@pytest.mark.exhaustive
def test_orphaned_ranks_save_and_end(endless: dict[str, Any], tmp_path: Path) -> None:
    with started(endless, tmp_path, ranks=2) as torchrun:
        wait_for(tmp_path, '"type":"metric"')
        ranks = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
        handles = [os.pidfd_open(int(pid)) for pid in ranks]
        torchrun.kill()
        ended = [bool(select.select([handle], [], [], 15)[0]) for handle in handles]
        for handle, has_ended in zip(handles, ended, strict=True):
            if not has_ended:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
    assert ended == [True, True]
    done = events_in(tmp_path)[-1]
    assert isinstance(done, DoneEvent)
    assert not done.completed
