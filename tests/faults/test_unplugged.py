"""A machine that is cut off from all others, while everything on it runs on."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from tests.support import service
from tests.support.database import empty_database
from tests.support.fake_trainer import losses
from tests.support.files import add_model_and_dataset
from tests.support.network import NetworkMachine, two_machines
from tests.support.service import FAKE_TRAINER, Service, busy_devices
from tests.support.waiting import until

pytestmark = pytest.mark.slow

STEPS = 60


@contextmanager
def relayed(machine: NetworkMachine, database: Path, broker: Path) -> Iterator[dict[str, str]]:
    """The settings by which another machine reaches both, at the address of this one."""
    relay = str(Path(service.__file__).with_name("relay.py"))
    bindings = [f"{machine.address}:5432={database}", f"{machine.address}:6379={broker}"]
    process = subprocess.Popen(machine.command([sys.executable, relay, *bindings]))
    try:
        yield {
            "FINETUNED_DATABASE_URL": f"postgresql+psycopg://finetuned@{machine.address}/finetuned",
            "FINETUNED_BROKER_URL": f"redis://{machine.address}:6379/0",
        }
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def machines() -> Iterator[tuple[NetworkMachine, NetworkMachine]]:
    with two_machines() as machines:
        yield machines


def ready(live: Service) -> set[str]:
    return {worker["name"] for worker in live.client.get("/workers").json()["data"] if worker["status"] == "ready"}


@pytest.mark.exhaustive
def test_job_of_unplugged_machine_continues_elsewhere_only(
    machines: tuple[NetworkMachine, NetworkMachine],
    tmp_path: Path,
    engine: sa.Engine,
    database_url: str,
    broker_url: str,
) -> None:
    here, away = machines
    empty_database(engine)
    add_model_and_dataset(tmp_path)
    database = Path(str(engine.url.query["host"]), ".s.PGSQL.5432")
    broker = Path(urlsplit(broker_url).path)
    trainer = {"FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}"}
    with (
        relayed(here, database, broker) as settings,
        service.running(tmp_path, database_url, broker_url, workers=(), **trainer) as live,
    ):
        live.start_worker("away", away.command([]), FINETUNED_ADDRESS=away.address, **settings)
        job_id = live.submit(name=f"steps={STEPS} every=3 sleep=0.6 ranks=2")["id"]
        live.wait_for_step(job_id, 5)
        live.start_worker("here", FINETUNED_ADDRESS="127.0.0.1")
        until(lambda: ready(live) == {"away", "here"})
        away.unplug()
        until(lambda: live.job(job_id)["worker"] == "here")
        assert ready(live) == {"here"}
        live.wait_for_step(job_id, live.job(job_id)["progress"]["step"] + 2)
        away.plug_in()
        until(lambda: ready(live) == {"away", "here"})
        job = live.wait(job_id, seconds=60)
        assert (job["status"], job["attempt"]) == ("succeeded", 2)
        columns = live.metrics(job_id)
        assert columns["step"] == list(range(1, STEPS + 1))
        assert columns["loss"] == losses(STEPS)
        assert live.reported(job_id, "started")[1]["resumed_step"] >= 3
        (retry,) = live.reported(job_id, "retry")
        assert retry["code"] == "worker_lost"
        until(lambda: not live.processes(job_id))
        until(lambda: not busy_devices(live))
        again = live.submit(name="steps=2")["id"]
        assert live.wait(again)["status"] == "succeeded"
