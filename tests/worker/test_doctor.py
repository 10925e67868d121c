"""What the doctor finds, on real servers."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from store import schema
from store.scheduling import workers
from store.session import Sessions
from tests.support import s3
from tests.support.fake_nvml import stand_in
from tests.support.jobs import cpu
from tests.support.servers import free_port
from worker import doctor
from worker.settings import WorkerSettings


@pytest.fixture
def settings(sessions: Sessions, tmp_path: Path, database_url: str, broker_url: str) -> WorkerSettings:
    with sessions.begin() as session:
        workers.register(session, "host-1", "first", "localhost", cpu(1))
        # No worker is there to send more of them.
        session.execute(sa.text("UPDATE workers SET seen_at = now() + interval '1 h'"))
    return WorkerSettings(
        database_url=SecretStr(database_url), broker_url=SecretStr(broker_url), home=tmp_path, worker="host-1"
    )


def run(settings: WorkerSettings, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {
        **os.environ,
        "FINETUNED_DATABASE_URL": settings.database_url.get_secret_value(),
        "FINETUNED_BROKER_URL": settings.broker_url.get_secret_value(),
        "FINETUNED_HOME": str(settings.home),
        "FINETUNED_PORT": str(free_port()),
        # The disk of the machine that runs the tests is not the question here.
        "FINETUNED_DISK_RESERVE": "0",
        **variables,
    }
    command = [sys.executable, "-W", "error", "-m", "finetuned", "doctor", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_healthy_service_has_no_fault(settings: WorkerSettings) -> None:
    done = run(settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["ok", name] for name in doctor.CHECKS]
    assert [path for path in settings.home.rglob("*") if path.is_file()] == []


def test_each_fault_is_one_line_and_the_exit_code(settings: WorkerSettings, tmp_path: Path) -> None:
    done = run(settings, FINETUNED_BROKER_URL=f"redis+socket://{tmp_path}/none.sock")
    assert done.returncode == 1
    (fault,) = [line for line in done.stdout.splitlines() if line.startswith("FAULT")]
    assert fault.split()[1] == "broker"
    assert len(done.stdout.splitlines()) == len(doctor.CHECKS)


def test_findings_are_json_on_request(settings: WorkerSettings, tmp_path: Path) -> None:
    done = run(settings, "--json", FINETUNED_BROKER_URL=f"redis+socket://{tmp_path}/none.sock")
    assert done.returncode == 1
    assert [each["check"] for each in json.loads(done.stdout) if not each["ok"]] == ["broker"]


def fault_of(check: Callable[[WorkerSettings], str], settings: WorkerSettings) -> str:
    with pytest.raises(doctor.CheckFailed) as fault:
        check(settings)
    return str(fault.value)


def test_unavailable_database_is_a_fault(settings: WorkerSettings, tmp_path: Path) -> None:
    away = settings.model_copy(
        update={"database_url": SecretStr(f"postgresql+psycopg://user:secret@/none?host={tmp_path}")}
    )
    for check in (doctor.check_database, doctor.check_clock):
        assert "look at FINETUNED_DATABASE_URL" in fault_of(check, away)
        assert "secret" not in fault_of(check, away)
    assert "the database does not answer" in fault_of(doctor.check_workers, away)


def test_other_schema_is_a_fault(settings: WorkerSettings, engine: sa.Engine) -> None:
    change = sa.text("UPDATE alembic_version SET version_num = :revision")
    with engine.begin() as connection:
        connection.execute(change, {"revision": schema.REVISIONS[0]})
    try:
        assert "run `python -m migrations`" in fault_of(doctor.check_database, settings)
    finally:
        with engine.begin() as connection:
            connection.execute(change, {"revision": schema.HEAD})


def test_no_ready_worker_is_a_fault(settings: WorkerSettings, engine: sa.Engine) -> None:
    assert doctor.check_workers(settings) == "ready: host-1"
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE workers SET draining = true"))
    assert "none is ready" in fault_of(doctor.check_workers, settings)


def test_full_or_missing_home_is_a_fault(settings: WorkerSettings) -> None:
    (settings.home / "file").touch()
    missing = settings.model_copy(update={"home": settings.home / "file" / "home"})
    for check in (doctor.check_disk, doctor.check_home):
        assert str(missing.home) in fault_of(check, missing)
    full = settings.model_copy(update={"disk_reserve": 10**18})
    assert "GB free, and no job starts with less than FINETUNED_DISK_RESERVE" in fault_of(doctor.check_disk, full)


@pytest.mark.exhaustive
def test_unusable_bucket_is_a_fault(settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    for name, value in s3.environment(port).items():
        monkeypatch.setenv(name, value)
    with s3.running_s3(port) as url:
        there, absent = (
            settings.model_copy(update={"storage": f"s3://{bucket}/ours"}) for bucket in (s3.BUCKET, "no-such-bucket")
        )
        assert doctor.check_bucket(there) == "can be written, read and deleted in"
        assert "no-such-bucket/ours: look at the AWS_* variables" in fault_of(doctor.check_bucket, absent)
        assert url


def test_unusable_gpus_are_a_fault(settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    have = stand_in(monkeypatch, tmp_path)
    have({"uuid": "GPU-a", "name": "NVIDIA H100"}, driver="470.1")
    trainer = settings.model_copy(update={"trainer": ["my-trainer"]})
    assert doctor.check_gpus(trainer) == "1 x NVIDIA H100"
    assert "torch" in fault_of(doctor.check_gpus, settings)  # of this environment, which is too new or without CUDA
    monkeypatch.delenv("FAKE_NVML")
    monkeypatch.setattr("worker.machine.inventory._initialised", False)
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "all")
    assert "install the NVIDIA Container Toolkit" in fault_of(doctor.check_gpus, settings)


class Other(BaseHTTPRequestHandler):
    body = b"hello"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Api(Other):
    body = b'{"status":"ok"}'


@pytest.fixture
def serve() -> Iterator[Callable[[type[Other]], str]]:
    servers: list[HTTPServer] = []

    def start(handler: type[Other]) -> str:
        servers.append(HTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever).start()
        return str(servers[-1].server_port)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_port_of_another_program_is_a_fault(
    settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, serve: Callable[[type[Other]], str]
) -> None:
    monkeypatch.setenv("FINETUNED_PORT", port := serve(Other))
    assert f"another program answers at port {port}" in fault_of(doctor.check_port, settings)
    monkeypatch.setenv("FINETUNED_PORT", port := serve(Api))
    assert doctor.check_port(settings) == f"the API answers at {port}"
