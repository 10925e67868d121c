"""Two machines, each with a torchrun of its own that finds the other by the c10d rendezvous."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contract.events import Metric, Started, parse_event
from tests.trainer.conftest import Outcome


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def agent(port: int, folder: Path) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=two-machines"),
        *("-m", "trainer", str(folder)),
    ]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


@pytest.mark.parametrize("parallel", [{}, {"engine": "deepspeed"}], ids=["ddp", "zero-2"])
def test_two_machines_train_as_one_does(
    parallel: dict[str, Any], recipe: dict[str, Any], run_trainer: Any, tmp_path: Path
) -> None:
    """Each machine has its own copy of the run folder; the one with rank 0 gets the results."""
    recipe["batch"] = {"micro_batch": 2, "effective": 5}
    alone: Outcome = run_trainer(recipe, name="alone")
    assert alone.exit_code == 0, alone.output

    port = free_port()
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        (folder / "recipe.json").write_text(json.dumps(recipe | {"resources": {"nodes": 2}, "parallel": parallel}))
    agents = [agent(port, folder) for folder in folders]
    for process in agents:
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
    (told,) = (folder for folder in folders if (folder / "events.jsonl").exists())
    assert (told / "adapter" / "adapter_model.safetensors").is_file()
    events = [parse_event(line) for line in (told / "events.jsonl").read_bytes().splitlines()]
    (started,) = (event for event in events if isinstance(event, Started))
    assert started.world_size == 2
    losses = [[e.loss for e in run if isinstance(e, Metric)] for run in (events, alone.events)]
    assert len(losses[1]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
