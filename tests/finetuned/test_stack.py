import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from finetuned import Client
from tests.finetuned.command_line import finetuned as command_line
from tests.finetuned.stacks import launched, pids_of, ready
from tests.support.files import write_model
from tests.support.processes import commands_naming
from tests.support.waiting import until

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
WORKER_IS_KILLED = 60
"""Seconds after which the stack kills a worker that is still trying to write."""


@pytest.fixture(scope="module")
def examples(folder: Path) -> Path:
    """A folder with a dataset; and the home has a model."""
    write_model(folder / "home" / "models" / "tiny")
    (folder / "rows.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    return folder


@pytest.mark.exhaustive
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_stack_starts_and_stops_and_leaves_no_process(folder: Path, signal_number: int) -> None:
    with ready(folder / "home", folder / "log") as up:
        up.process.send_signal(signal_number)
        code, log = up.wait()
        assert code == 0, log
        assert log.splitlines()[-3:] == ["stopping the worker", "stopping the api", "stopped"]
        assert commands_naming(folder) == []


def test_job_runs_and_survives_a_restart(examples: Path) -> None:
    for status in ("succeeded", "already"):
        with (
            ready(examples / "home", examples / "log", FINETUNED_ALLOWED_PATHS=str(examples)) as up,
            Client(up.url) as client,
        ):
            assert [worker.status for worker in client.workers.list()] == ["ready"]  # from the first moment
            if status == "succeeded":
                job_id = client.jobs.create({"model": "tiny", "dataset": "rows.jsonl", "name": "steps=2"}).id
                assert list(client.jobs.at(job_id).watch())[-1].data["status"] == status
            assert client.jobs.get(job_id).status == "succeeded"


@pytest.mark.exhaustive
def test_notebook_runs_from_its_first_cell_to_its_last(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    notebook = json.loads((ROOT / "examples/client.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"] == [[]] * len(cells)
    names: dict[str, object] = {}
    with ready(examples / "home", examples / "log") as up:
        monkeypatch.setenv("FINETUNED_URL", up.url)
        for cell in cells:
            exec(cell.replace("smollm2-135m-instruct", "tiny"), names)
    assert getattr(names["job"], "status") == "succeeded"  # noqa: B009
    assert getattr(names["dataset"], "status") == "processed"  # noqa: B009


def test_examples_of_the_clients_page_run(
    examples: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/client.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    monkeypatch.chdir(examples)
    with ready(examples / "home", examples / "log", FINETUNED_ALLOWED_PATHS=str(ROOT)) as up:
        monkeypatch.setenv("FINETUNED_URL", up.url)
        names: dict[str, Any] = {}
        for block in blocks:
            exec(block.replace("smollm2-135m-instruct", "tiny"), names)
        with Client(up.url) as client:
            whole, thinned = (client.jobs.at(names["job"].id).metrics(points) for points in (None, 2))
    assert list((examples / "adapter").rglob("adapter_config.json"))
    assert capsys.readouterr().out.splitlines()[0].startswith("1 ")
    assert (thinned["step"][0], thinned["step"][-1]) == (whole["step"][0], whole["step"][-1])


def test_killed_stack_loses_no_process_nor_job(examples: Path) -> None:
    allowed = {"FINETUNED_ALLOWED_PATHS": str(examples), "FINETUNED_LEASE": "PT1S"}
    with ready(examples / "home", examples / "log", **allowed) as up, Client(up.url) as client:
        recipe = {"model": "tiny", "dataset": "rows.jsonl", "name": "steps=30 sleep=0.1"}
        job_id = client.jobs.create(recipe).id
        until(lambda: client.jobs.get(job_id).status == "running", seconds=20)
        up.process.kill()
        until(lambda: not commands_naming(examples), seconds=20)
    with ready(examples / "home", examples / "log", **allowed) as up, Client(up.url) as client:
        assert list(client.jobs.at(job_id).watch())[-1].data["status"] == "succeeded"


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", ["worker", "api"])
def test_dead_part_is_restarted_and_jobs_continue(examples: Path, part: str) -> None:
    with (
        ready(examples / "home", examples / "log", FINETUNED_ALLOWED_PATHS=str(examples)) as up,
        Client(up.url) as client,
    ):
        recipe = {"model": "tiny", "dataset": "rows.jsonl", "name": "steps=30 every=3 sleep=0.1"}
        job_id = client.jobs.create(recipe).id
        until(lambda: client.jobs.get(job_id).progress is not None, seconds=20)
        (pid,) = pids_of(up.process.pid, f"-m\0{part}\0")
        os.kill(pid, signal.SIGKILL)
        until(lambda: f"the {part} died with SIGKILL; restarting it" in up.log.read_text(), seconds=20)
        assert list(client.jobs.at(job_id).watch())[-1].data["status"] == "succeeded"
        up.process.terminate()
        code, log = up.wait()
        assert code == 0, log
        assert commands_naming(examples) == []


@pytest.mark.exhaustive
def test_dead_server_restarts_but_database_only_once(examples: Path) -> None:
    with (
        ready(examples / "home", examples / "log", FINETUNED_ALLOWED_PATHS=str(examples)) as up,
        Client(up.url) as client,
    ):

        def kill(server: str) -> None:
            before = up.log.read_text().count("restarting it")
            os.kill(pids_of(up.process.pid, f"/{server}")[0], signal.SIGKILL)
            until(lambda: up.log.read_text().count("restarting it") > before, seconds=20)

        recipe = {"model": "tiny", "dataset": "rows.jsonl", "name": "steps=40 every=4 sleep=0.1"}
        running = client.jobs.create(recipe).id
        until(lambda: client.jobs.get(running).progress is not None, seconds=20)
        kill("valkey-server")
        waiting = client.jobs.create(recipe).id
        kill("postgres")
        for job_id in (running, waiting):
            assert list(client.jobs.at(job_id).watch())[-1].data["status"] == "succeeded"
            until(lambda: is_ready(up.url), seconds=20)
            assert client.jobs.get(job_id).attempt == 1
            assert client.jobs.at(job_id).metrics()["step"] == list(range(1, 41))
        began = time.monotonic()
        os.kill(pids_of(up.process.pid, "/postgres")[0], signal.SIGKILL)
        code, log = up.wait()
        assert time.monotonic() - began < WORKER_IS_KILLED
        assert code == 1
        assert "postgres died with SIGKILL; the end of" in log
        assert "database system is ready to accept connections" in log
        assert commands_naming(examples) == []


@pytest.mark.exhaustive
def test_running_stack_is_saved_and_restored_elsewhere(examples: Path) -> None:
    allowed = {"FINETUNED_ALLOWED_PATHS": str(examples)}
    archive, other = examples / "stack.tar", examples / "other"
    with ready(examples / "home", examples / "log", **allowed) as up, Client(up.url) as client:
        job_id = client.jobs.create({"model": "tiny", "dataset": "rows.jsonl", "name": "steps=2"}).id
        assert list(client.jobs.at(job_id).watch())[-1].data["status"] == "succeeded"
        artifacts = client.jobs.at(job_id).artifacts()
        port = up.url.rpartition(":")[2]
        done = command_line("doctor", "--home", str(examples / "home"), "--port", port)
        assert (done.returncode, "FAULT" in done.stdout) == (0, False), done.stdout + done.stderr
        done = command_line("backup", str(archive), "--home", str(examples / "home"))
        assert done.returncode == 0, done.stderr
    done = command_line("restore", str(archive), "--home", str(other))
    assert done.returncode == 0, done.stderr
    with ready(other, examples / "log", **allowed) as up, Client(up.url) as client:
        assert client.jobs.at(job_id).artifacts() == artifacts


def is_ready(url: str) -> bool:
    return httpx.get(f"{url}/health/ready", trust_env=False).is_success


@pytest.mark.exhaustive
def test_second_stack_on_the_same_home_is_refused(folder: Path) -> None:
    with ready(folder / "home", folder / "log") as first, launched(folder / "home", folder / "log2") as second:
        code, log = second.wait()
        assert code == 1
        assert log.startswith(f"another finetuned, process {first.process.pid}, is running on {folder / 'home'}")


def test_taken_port_is_reported_before_the_start(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "finetuned", "up", "--home", str(folder / "untouched"), "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot listen on 127.0.0.1 port {port}: Address already in use.")
    assert not (folder / "untouched").exists()
