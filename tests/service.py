"""The service as real processes: the API and a Celery worker, against the tests' PostgreSQL and Valkey."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from contract.run_dir import RunDir

FAKE_TRAINER = Path(__file__).with_name("fake_trainer.py")
TERMINAL = {"succeeded", "failed", "cancelled"}


@dataclass
class Service:
    home: Path
    environment: dict[str, str]
    client: httpx.Client
    worker: subprocess.Popen[bytes]

    def submit(self, **recipe: Any) -> dict[str, Any]:
        answer = self.client.post("/jobs", json={"model": "tiny", "dataset": "rows.jsonl", **recipe})
        assert answer.status_code == 201, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def wait(self, job_id: str, *statuses: str, seconds: float = 30) -> dict[str, Any]:
        """The job, once it has one of the statuses, or any end."""
        deadline = time.monotonic() + seconds
        while True:
            job = self.job(job_id)
            if job["status"] in (statuses or TERMINAL):
                return job
            assert job["status"] not in TERMINAL, f"ended as {job}"
            assert time.monotonic() < deadline, f"still {job}"
            time.sleep(0.05)

    def wait_for_step(self, job_id: str, step: int, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while ((job := self.job(job_id))["progress"] or {"step": 0})["step"] < step:
            assert job["status"] not in TERMINAL, f"ended as {job}"
            assert time.monotonic() < deadline, f"still {job}"
            time.sleep(0.05)

    def run_dir(self, job_id: str, attempt: int = 1) -> RunDir:
        return RunDir(self.home / "runs" / job_id / f"attempt-{attempt}")

    def events(self, job_id: str, last_event_id: str | None = None) -> list[tuple[str, str, dict[str, Any]]]:
        """(type, id, data) of the whole stream, until the server ends it."""
        headers = {"last-event-id": last_event_id} if last_event_id else {}
        with self.client.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            blocks = "".join(answer.iter_text()).replace("\r\n", "\n").split("\n\n")
        parsed = [
            dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":") for block in blocks if block
        ]
        return [(block["event"], block["id"], json.loads(block["data"])) for block in parsed if block]

    def stop_worker(self) -> None:
        self.worker.terminate()
        self.worker.wait(60)

    def start_worker(self, **settings: str) -> None:
        self.worker = start("worker", {**self.environment, **settings}, self.home)

    def processes(self, job_id: str) -> list[int]:
        """Those that have the job's run folder in their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if job_id.encode() in command:
                    found.append(int(entry.name))
        return found


@contextmanager
def running(home: Path, database_url: str, broker_url: str, **settings: str) -> Iterator[Service]:
    port = free_port()
    environment = {
        **os.environ,
        "FINETUNED_DATABASE_URL": database_url,
        "FINETUNED_BROKER_URL": broker_url,
        "FINETUNED_HOME": str(home),
        "FINETUNED_PORT": str(port),
        **settings,
    }
    api = start("api", environment, home)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        service = Service(home, environment, client, start("worker", environment, home))
        try:
            wait_for_api(client, api, home)
            yield service
        finally:
            for process in (api, service.worker):
                process.terminate()
            for process in (api, service.worker):
                process.wait(60)


def start(part: str, environment: dict[str, str], home: Path) -> subprocess.Popen[bytes]:
    with (home / f"{part}.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", part], env=environment, stdout=log, stderr=log, cwd=home)


def wait_for_api(client: httpx.Client, api: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert api.poll() is None, (home / "api.log").read_text()
        assert time.monotonic() < deadline, (home / "api.log").read_text()
        try:
            client.get("/health").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
