"""The dashboard of a service that wants keys."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.support import many_jobs, service
from tests.support.api import ADMIN_KEY, bearer
from tests.support.database import empty_database
from tests.support.files import add_model_and_dataset
from tests.support.service import Service
from tests.web.signing_in import sign_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, engine: sa.Engine, database_url: str, broker_url: str
) -> Iterator[Service]:
    """Without a worker: what is queued stays so."""
    empty_database(engine)
    home = tmp_path_factory.mktemp("home")
    add_model_and_dataset(home)
    settings = {"FINETUNED_REQUIRE_KEYS": "true", "FINETUNED_ADMIN_KEY": ADMIN_KEY}
    with service.running(home, database_url, broker_url, workers=(), **settings) as running:
        yield running


@pytest.fixture
def keys(live: Service) -> dict[str, str]:
    """Of two owners."""
    admin = bearer(ADMIN_KEY)
    made = [live.client.post("/keys", json={"owner": owner}, headers=admin).json() for owner in ("anna", "bob")]
    return {each["owner"]: each["secret"] for each in made}


def test_second_owner_sees_nothing_of_the_first(
    browser: Browser, live: Service, page: Page, keys: dict[str, str]
) -> None:
    recipe = {"model": "tiny", "dataset": "rows.jsonl", "name": "annas"}
    job = live.client.post("/jobs", json=recipe, headers=bearer(keys["anna"])).raise_for_status().json()
    sign_in(page, keys["anna"])
    expect(page.get_by_role("link", name="annas")).to_be_visible()
    with_context = browser.new_context(base_url=str(live.client.base_url), locale="en-US")
    other = with_context.new_page()
    sign_in(other, keys["bob"])
    expect(other.get_by_role("heading", name="No job yet")).to_be_visible()
    other.goto(f"/#/jobs/{job['id']}")
    expect(other.get_by_role("alert")).to_be_visible()
    assert "annas" not in other.content()
    with_context.close()


def test_wrong_key_opens_nothing(page: Page, live: Service) -> None:
    sign_in(page, "ftk_wrong")
    expect(page.get_by_role("alert")).to_contain_text("key")
    expect(page.get_by_label("Key")).to_be_visible()
    assert cookies(page.context) == {}


def test_signing_out_closes_the_page_and_the_cookie(page: Page, live: Service, keys: dict[str, str]) -> None:
    sign_in(page, keys["anna"])
    page.get_by_role("button", name="Sign out").wait_for()
    (token,) = cookies(page.context).values()
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Key")).to_be_visible()
    assert cookies(page.context) == {}
    answer = live.client.get("/jobs", headers={"cookie": f"finetuned_session={token}"})
    assert answer.status_code == 401


def test_older_jobs_are_loaded_at_the_end(page: Page, live: Service, engine: sa.Engine) -> None:
    many_jobs.fill(engine, 1_050)
    sign_in(page, ADMIN_KEY)
    table = page.get_by_role("region", name="Jobs")
    expect(page.get_by_text("1000 of 1000 loaded jobs")).to_be_visible()
    page.get_by_role("searchbox").fill("org/base")
    expect(page.get_by_text("cover the loaded jobs")).to_have_count(1)
    page.get_by_role("searchbox").fill("")
    table.focus()
    page.keyboard.press("End")
    expect(page.get_by_role("button", name="Load older jobs")).to_have_count(0, timeout=30_000)
    with engine.connect() as connection:
        count = connection.scalar(sa.text("SELECT count(*) FROM jobs"))
    expect(page.get_by_text(f"{count} of {count} jobs")).to_be_visible()


def cookies(context: BrowserContext) -> dict[str, str]:
    return {each["name"]: each["value"] for each in context.cookies() if each["name"] == "finetuned_session"}
