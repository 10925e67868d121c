import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.settings import ApiSettings
from contract.machine import Disk
from store import webhooks
from store.scheduling import workers
from store.session import Sessions
from tests.support.api import serve
from tests.support.jobs import claim, cpu, create_job, register
from tests.support.settings import VAULT


def numbers(client: TestClient) -> dict[str, float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_jobs_devices_and_workers_are_counted_by_state(client: TestClient, sessions: Sessions) -> None:
    for _ in range(3):
        create_job(sessions)
    with sessions.begin() as session:
        assert claim(session) is not None
        register(session, "other", slots=2)
        workers.register(session, "gone", "first", "localhost", cpu(4))
        session.connection().exec_driver_sql(
            "UPDATE workers SET seen_at = now() - interval '1 min' WHERE name = 'gone'"
        )
    now = numbers(client)
    assert now['finetuned_jobs{status="queued"}'] == 2
    assert now['finetuned_jobs{status="running"}'] == 1
    assert now['finetuned_jobs{status="failed"}'] == 0
    assert 0 < now["finetuned_queue_age_seconds"] < 60
    assert [now[f'finetuned_devices{{state="{each}"}}'] for each in ("free", "leased", "busy", "lost")] == [2, 1, 0, 4]
    assert [now[f'finetuned_workers{{state="{each}"}}'] for each in ("ready", "draining", "lost")] == [2, 0, 1]
    assert now["finetuned_database_up"] == 1
    assert now["process_resident_memory_bytes"] > 0


def test_free_disk_and_low_workers_are_reported(
    client: TestClient, home: Path, sessions: Sessions, tmp_path_factory: pytest.TempPathFactory
) -> None:
    disk = Disk(free_bytes=5, total_bytes=100, reserve_bytes=10, low=True)
    with sessions.begin() as session:
        register(session)
        workers.record_disk(session, "worker", "first", disk)
    now = numbers(client)
    assert now["finetuned_low_disk_workers"] == 1
    assert 0 < now['finetuned_disk_free_bytes{folder="home"}'] < now['finetuned_disk_bytes{folder="home"}']
    assert 'finetuned_disk_free_bytes{folder="runs"}' not in now
    (home / "runs").symlink_to(tmp_path_factory.mktemp("another"))
    assert numbers(client)['finetuned_disk_free_bytes{folder="runs"}'] > 0


def test_messages_to_webhooks_are_counted(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        webhook, _ = webhooks.create(session, VAULT, "default", "https://example.com", list(webhooks.EventType))
        webhook.enabled = False
        webhooks.ping(session, webhook)
    assert numbers(client)['finetuned_webhook_deliveries{status="pending"}'] == 1


def test_requests_are_counted_by_route(client: TestClient, sessions: Sessions) -> None:
    job_id = create_job(sessions)
    for path in (f"/jobs/{job_id}", "/jobs/job_" + "0" * 24, "/nothing/" + job_id):
        client.get(path)
    client.request("BREW", "/jobs")
    now = numbers(client)
    assert now['finetuned_http_requests_total{method="GET",route="/jobs/{job_id}",status="200"}'] == 1
    assert now['finetuned_http_requests_total{method="GET",route="/jobs/{job_id}",status="404"}'] == 1
    assert now['finetuned_http_requests_total{method="GET",route="none",status="404"}'] == 1
    assert now['finetuned_http_request_seconds_count{method="GET",route="/jobs/{job_id}"}'] == 2
    assert any('method="other"' in name for name in now)
    text = client.get("/metrics").text
    assert "job_0" not in text
    assert job_id not in text
    assert "default" not in re.sub(r"# HELP.*", "", text)


def test_process_metrics_need_no_database(settings: ApiSettings) -> None:
    away = settings.model_copy(update={"database_url": SecretStr("postgresql+psycopg://u@127.0.0.1:1/none")})
    with serve(away) as client:
        now = numbers(client)
    assert now["finetuned_database_up"] == 0
    assert now["finetuned_event_streams"] == 0
    assert "finetuned_queue_age_seconds" not in now


def test_metrics_need_an_admin_key(settings: ApiSettings, sessions: Sessions) -> None:
    admin_key = "an-admin-key-of-some-length"
    with serve(settings.model_copy(update={"require_keys": True, "admin_key": SecretStr(admin_key)})) as client:
        assert client.get("/metrics").status_code == 401
        assert client.get("/metrics", headers={"authorization": f"Bearer {admin_key}"}).status_code == 200
        assert client.get("/health/live").status_code == 200


@pytest.fixture
def with_worker(client: TestClient, sessions: Sessions) -> TestClient:
    with sessions.begin() as session:
        register(session)
    return client


def test_ready_means_database_broker_and_worker(with_worker: TestClient) -> None:
    answer = with_worker.get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({}, "worker: none is there that takes jobs"),
        ({"broker_url": SecretStr("redis://127.0.0.1:1/0")}, "broker: it does not answer"),
        ({"database_url": SecretStr("postgresql+psycopg://u@127.0.0.1:1/none")}, "database: it does not answer"),
    ],
)
def test_missing_part_is_named(
    settings: ApiSettings, sessions: Sessions, change: dict[str, SecretStr], missing: str
) -> None:
    with serve(settings.model_copy(update=change)) as client:
        if "broker_url" in change:
            with sessions.begin() as session:
                register(session)
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert answer.json()["error"]["message"] == missing
        assert client.get("/health/live").json() == {"status": "ok"}


def test_worker_before_the_api_is_not_ready(settings: ApiSettings, sessions: Sessions) -> None:
    """It may have ended together with an earlier API; a living one sends a heartbeat every second."""
    with sessions.begin() as session:
        register(session)
    with serve(settings) as client:
        assert client.get("/health/ready").status_code == 503
        with sessions.begin() as session:
            workers.heartbeat(session, "worker", "first", {}, draining=False)
        assert client.get("/health/ready").status_code == 200


def test_draining_worker_is_not_ready(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        register(session)
        workers.heartbeat(session, "worker", "first", {}, draining=True)
    assert client.get("/health/ready").status_code == 503
