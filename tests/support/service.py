"""The service as real processes: the API and Celery workers, against the tests' PostgreSQL and Valkey."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from contract.run_dir import RunDir
from migrations import worker_role
from runtime.processes import parent_of
from tests.support.processes import all_pids, ancestors, read_proc
from tests.support.servers import Servers, free_port
from tests.support.settings import SECRET_KEY
from tests.support.waiting import until
from worker.supervise.process import RUN_MARK

FAKE_TRAINER = Path(__file__).with_name("fake_trainer.py")
SECRET_TOKEN = "open sesame"
"""In the environment of a service, where no trainer may see it."""
TERMINAL = {"succeeded", "failed", "cancelled"}


@dataclass
class Service:
    home: Path
    environment: dict[str, str]
    client: httpx.Client
    api: subprocess.Popen[bytes]
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    """Workers that a test has killed or stopped. No other may end."""
    restart: dict[str, Callable[[], None]] = field(default_factory=dict)
    """Starts each worker as it was started last."""
    servers: Servers | None = None
    """PostgreSQL and Valkey, where the tests may stop them."""

    def submit(self, **recipe: Any) -> dict[str, Any]:
        answer = self.client.post("/jobs", json={"model": "tiny", "dataset": "rows.jsonl", **recipe})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def ask(self, what: str, job_id: str) -> dict[str, Any]:
        """POST /jobs/JOB/cancel, pause, resume or retry."""
        answer = self.client.post(f"/jobs/{job_id}/{what}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

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

    def metrics(self, job_id: str) -> dict[str, list[Any]]:
        return self.client.get(f"/jobs/{job_id}/metrics").json()["columns"]

    def run_dir(self, job_id: str, attempt: int = 1) -> RunDir:
        return RunDir(self.home / "runs" / job_id / f"attempt-{attempt}")

    def events(self, job_id: str, last_event_id: str | None = None) -> list[tuple[str, str, dict[str, Any]]]:
        """(type, id, data) of the whole stream, until the server ends it."""
        headers = {"last-event-id": last_event_id} if last_event_id else {}
        with self.client.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            return parse_events("".join(answer.iter_text()))

    def reported(self, job_id: str, kind: str) -> list[dict[str, Any]]:
        return [data for each, _, data in self.events(job_id) if each == kind]

    @property
    def worker(self) -> subprocess.Popen[bytes]:
        """The only one."""
        (worker,) = self.workers.values()
        return worker

    def start_worker(self, name: str = "worker", inside: Sequence[str] = (), **settings: str) -> None:
        """`inside` is a command that runs another, such as in a network of its own."""
        database = as_worker_role(self.environment["FINETUNED_DATABASE_URL"])
        environment = {**self.environment, "FINETUNED_DATABASE_URL": database, "FINETUNED_WORKER": name, **settings}
        self.restart[name] = partial(self.start_worker, name, inside, **settings)
        self.workers[name] = start("worker", environment, self.home, name, inside)
        self.stopped.discard(name)

    def stop_worker(self, name: str = "worker") -> None:
        self.stopped.add(name)
        self.workers[name].terminate()
        self.workers[name].wait(60)

    def kill_worker(self, name: str = "worker") -> None:
        """Its main process alone."""
        self.stopped.add(name)
        self.workers[name].kill()
        self.workers[name].wait()

    def start_api(self) -> None:
        self.api = start("api", self.environment, self.home, "api")
        wait_for_api(self.client, self.api, self.home)

    def ended(self) -> set[str]:
        """Names of the workers that are not there."""
        return {name for name, worker in self.workers.items() if worker.poll() is not None}

    def recover(self) -> None:
        """Clears what a failed test has left, so that the next one fails for reasons of its own alone."""
        if self.servers is not None:
            self.servers.start_what_is_down()
        if self.api.poll() is not None:
            self.start_api()
        for pid in self.everything():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for name in self.ended():
            self.restart[name]()
        with self._as_admin():
            for job in self.client.get("/jobs", params={"limit": 100}).raise_for_status().json()["data"]:
                if job["status"] not in TERMINAL:
                    self.client.post(f"/jobs/{job['id']}/cancel", params={"force": True}).raise_for_status()
            # A server that answers may stay where it is.
            until(lambda: not any(each.get("jobs", True) for each in busy_devices(self)), seconds=60)
            until(lambda: not self.strangers(), seconds=60)

    @contextmanager
    def _as_admin(self) -> Iterator[None]:
        """The client has the admin's key, if the service wants keys."""
        given = self.client.headers.copy()
        if key := self.environment.get("FINETUNED_ADMIN_KEY"):
            self.client.headers["authorization"] = f"Bearer {key}"
        try:
            yield
        finally:
            self.client.headers = given

    def strangers(self) -> list[str]:
        """Processes of this service that have outlived what started them: below no worker that is there, nor the
        API."""
        known = {process.pid for process in (self.api, *self.workers.values()) if process.poll() is None}
        parents = {pid: parent_of(pid) for pid in all_pids()}
        return [
            f"{pid}: {read_proc(pid, 'cmdline').decode().split(chr(0))}"
            for pid in self.everything()
            if parents.get(pid) is not None and not known.intersection(ancestors(pid, parents))
        ]

    def everything(self) -> list[int]:
        """Every process of this service, whoever its parent is."""
        ours = (f"FINETUNED_HOME={self.home}\0".encode(), f"FINETUNED_RUN={self.home}/runs/".encode())
        pids = all_pids()
        return [pid for pid in pids if any(mark in read_proc(pid, "environ") for mark in ours)]

    def processes(self, job_id: str) -> list[int]:
        """Those that have the job's run folder in their command line or their environment."""
        return [pid for pid in all_pids() if job_id.encode() in read_proc(pid, "cmdline") + read_proc(pid, "environ")]

    def processes_of(self, job_id: str, attempt: int) -> list[int]:
        """By their environment: the command line of a later attempt names the folder that it resumes from."""
        mark = f"{RUN_MARK}={self.run_dir(job_id, attempt).path}\0".encode()
        return [pid for pid in self.processes(job_id) if mark in read_proc(pid, "environ")]


def as_worker_role(database_url: str) -> str:
    """The URL of connections that have the rights of the workers' role alone."""
    return f"{database_url}{'&' if '?' in database_url else '?'}options=-crole%3D{worker_role.ROLE}"


def parse_events(stream: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(type, id, data) of each that is whole."""
    blocks = stream.replace("\r\n", "\n").split("\n\n")[:-1]
    parsed = [dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":") for block in blocks if block]
    return [(block["event"], block["id"], json.loads(block["data"])) for block in parsed if block]


def busy_devices(live: Service) -> list[dict[str, Any]]:
    """Devices that are not free."""
    try:
        workers = live.client.get("/workers").raise_for_status().json()
    except httpx.HTTPError:
        return [{}]
    listed = workers["data"] if isinstance(workers, dict) else workers
    return [device for worker in listed for device in worker["devices"] if device["status"] != "free"]


@contextmanager
def running(
    home: Path, database_url: str, broker_url: str, workers: Sequence[str] = ("worker",), **settings: str
) -> Iterator[Service]:
    port = free_port()
    environment = {
        **os.environ,
        "FINETUNED_DATABASE_URL": database_url,
        "FINETUNED_BROKER_URL": broker_url,
        "FINETUNED_HOME": str(home),
        "FINETUNED_PORT": str(port),
        "FINETUNED_SECRET_KEY": SECRET_KEY.get_secret_value(),
        **settings,
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        service = Service(home, environment, client, start("api", environment, home, "api"))
        try:
            for name in workers:
                service.start_worker(name)
            wait_for_api(client, service.api, home)
            yield service
        finally:
            processes = [service.api, *service.workers.values()]
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(60)


def start(
    part: str, environment: dict[str, str], home: Path, name: str, inside: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    with (home / f"{name}.log").open("ab") as log:
        command = [*inside, sys.executable, "-m", part]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=home)


def migrate(database_url: str, revision: str = "head") -> None:
    """Brings a database to a schema; at the head it has the role with whose rights a Service's workers run."""
    environment = {**os.environ, "FINETUNED_DATABASE_URL": database_url, "FINETUNED_WORKER_PASSWORD": "any"}
    subprocess.run([sys.executable, "-m", "migrations", revision], env=environment, check=True)


def wait_for_api(client: httpx.Client, api: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        assert api.poll() is None, (home / "api.log").read_text()
        assert time.monotonic() < deadline, (home / "api.log").read_text()
        try:
            client.get("/health").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.05)
