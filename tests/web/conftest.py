"""The dashboard in a browser, against the whole service with a trainer that trains nothing."""

import sys
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Page

from tests.support import chromium, fake_merger, service
from tests.support.database import empty_database
from tests.support.files import add_model_and_dataset
from tests.support.hub import ModelHub, model_hub
from tests.support.service import FAKE_TRAINER, Service


@pytest.fixture(scope="module")  # while it is open, nothing else in the process can have an event loop
def browser() -> Iterator[Browser]:
    with chromium.browser() as running:
        yield running


@pytest.fixture(scope="module")
def hub() -> Iterator[ModelHub]:
    with model_hub() as running:
        yield running


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, engine: sa.Engine, database_url: str, broker_url: str, hub: ModelHub
) -> Iterator[Service]:
    empty_database(engine)
    home = tmp_path_factory.mktemp("home")
    add_model_and_dataset(home)
    settings = {
        "FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}",
        "FINETUNED_EXPORTER": f"{sys.executable} -P {fake_merger.__file__}",
        "FINETUNED_SLOTS": "3",
        "HF_TOKEN": service.SECRET_TOKEN,
        "HF_ENDPOINT": hub.url,
    }
    with service.running(home, database_url, broker_url, **settings) as running:
        yield running


@pytest.fixture
def page(browser: Browser, live: Service) -> Iterator[Page]:
    """A tab of a reader who was never here, in English. The page may log no error and load nothing from elsewhere."""
    context = browser.new_context(base_url=str(live.client.base_url), locale="en-US", timezone_id="UTC")
    tab = context.new_page()
    errors: list[str] = []
    requested: list[str] = []
    tab.on("pageerror", lambda error: errors.append(f"{error}\n{error.stack}"))
    tab.on("request", lambda request: requested.append(request.url))
    yield tab
    context.close()
    assert errors == []
    assert [url for url in requested if not url.startswith((str(live.client.base_url), "data:"))] == []
