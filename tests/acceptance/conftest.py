"""The whole service with a trainer that trains nothing, so that a job takes a second."""

import sys
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.support import service
from tests.support.database import empty_database
from tests.support.files import add_model_and_dataset
from tests.support.service import FAKE_TRAINER, SECRET_TOKEN, Service


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, engine: sa.Engine, database_url: str, broker_url: str
) -> Iterator[Service]:
    empty_database(engine)
    home = tmp_path_factory.mktemp("home")
    add_model_and_dataset(home)
    settings = {
        "FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}",
        "FINETUNED_LEASE": "PT3S",
        "FINETUNED_MAX_RETRIES": "1",
        "FINETUNED_RETRY_WAIT": "PT0.2S",
        "SOME_TOKEN": SECRET_TOKEN,
    }
    with service.running(home, database_url, broker_url, **settings) as running:
        yield running
