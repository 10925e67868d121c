"""The service with one worker, which hands its jobs to a real Slurm of two nodes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support import service
from tests.support.database import empty_database
from tests.support.files import add_model_and_dataset
from tests.support.service import FAKE_TRAINER, SECRET_TOKEN, Service
from tests.support.slurm import SlurmCluster
from tests.support.waiting import until

LOW = {"launcher": "slurm", "partition": "low", "gpus_per_node": 2, "max_nodes": 2, "max_jobs": 3}
PROFILES = {"low": LOW, "short": {**LOW, "time_limit": "1"}}


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory,
    engine: sa.Engine,
    database_url: str,
    broker_url: str,
    cluster: SlurmCluster,
) -> Iterator[Service]:
    empty_database(engine)
    home = tmp_path_factory.mktemp("home")
    add_model_and_dataset(home)
    settings = {
        "FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}",
        "FINETUNED_PROFILES": str(write_profiles(home)),
        "FINETUNED_RETRY_WAIT": "PT0.2S",
        "FINETUNED_DISK_RESERVE": "0",
        "PATH": cluster.environment["PATH"],
        "SLURM_CONF": cluster.environment["SLURM_CONF"],
        "SOME_TOKEN": SECRET_TOKEN,
    }
    with service.running(home, database_url, broker_url, ["login"], **settings) as running:
        until(lambda: running.client.get("/workers").json()["data"], seconds=90)
        yield running


def write_profiles(home: Path) -> Path:
    file = home / "profiles.json"
    file.write_text(json.dumps(PROFILES))
    return file


@pytest.fixture(autouse=True)
def free_nodes(cluster: SlurmCluster) -> Iterator[None]:
    """A test that fails leaves no job to the next."""
    yield
    cluster.recover()
