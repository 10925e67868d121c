"""Event streams of a real job whose ranks are killed just after a state was saved: clients that connect meanwhile."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.victims import ranks
from tests.support import service
from tests.support.fake_trainer import losses
from tests.support.files import add_model_and_dataset
from tests.support.service import FAKE_TRAINER, Service, parse_events
from tests.support.waiting import until

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(300)]

STEPS, EVERY, KILLS = 600, 40, 3
NEW_CLIENT_SECONDS = 0.05


@pytest.fixture
def live(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Service]:
    add_model_and_dataset(tmp_path)
    trainer = f"{sys.executable} -P {FAKE_TRAINER}"
    with service.running(tmp_path, database_url, broker_url, FINETUNED_TRAINER=trainer) as running:
        yield running


def kill_after_a_state(live: Service, job_id: str, attempt: int) -> None:
    """Two steps after the next one, so that the job is retried from a little before."""
    until(lambda: ranks(live, job_id))
    first = live.job(job_id)["progress"]["step"] // EVERY * EVERY if attempt > 1 else 0
    live.wait_for_step(job_id, first + EVERY + 2, seconds=60)
    os.kill(ranks(live, job_id)[0], signal.SIGKILL)


def test_clients_that_connect_during_retries_lack_no_step(live: Service) -> None:
    job_id = live.submit(name=f"steps={STEPS} every={EVERY} sleep=0.05 ranks=2")["id"]
    streams: list[list[int]] = []
    clients: list[threading.Thread] = []

    def read() -> None:
        with httpx.Client(base_url=live.client.base_url, timeout=60) as client:
            received = parse_events(client.get(f"/jobs/{job_id}/events").text)
        streams.append([data["step"] for kind, _, data in received if kind == "metric"])

    def connect(seconds: float) -> None:
        until_then = time.monotonic() + seconds
        while time.monotonic() < until_then:
            clients.append(threading.Thread(target=read))
            clients[-1].start()
            time.sleep(NEW_CLIENT_SECONDS)

    for attempt in range(1, KILLS + 1):
        kill_after_a_state(live, job_id, attempt)
        until(lambda: live.job(job_id)["attempt"] == attempt + 1, seconds=60)  # noqa: B023
        connect(2)
    assert live.wait(job_id, seconds=120)["status"] == "succeeded"
    for client in clients:
        client.join(60)
    assert len(streams) == len(clients) >= 20 * KILLS
    assert [steps for steps in streams if steps != list(range(1, STEPS + 1))] == []
    assert live.metrics(job_id)["loss"] == losses(STEPS)
