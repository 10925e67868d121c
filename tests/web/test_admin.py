"""What admins do with keys, limits and the audit log, and owners with webhooks, in a real browser."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from contract.machine import Gpu, Machine
from store.models import MemoryReading
from store.scheduling import workers
from store.session import make_sessions
from tests.api.webhooks.receiver import receiving
from tests.support import service
from tests.support.api import ADMIN_KEY, bearer
from tests.support.database import empty_database
from tests.support.files import add_model_and_dataset
from tests.support.servers import free_port
from tests.support.service import Service
from tests.web.signing_in import sign_in

pytestmark = pytest.mark.slow

ADMIN = bearer(ADMIN_KEY)


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, engine: sa.Engine, database_url: str, broker_url: str
) -> Iterator[Service]:
    """Without a worker: what is queued stays so."""
    empty_database(engine)
    home = tmp_path_factory.mktemp("home")
    add_model_and_dataset(home)
    settings = {
        "FINETUNED_REQUIRE_KEYS": "true",
        "FINETUNED_ADMIN_KEY": ADMIN_KEY,
        "FINETUNED_WEBHOOK_ALLOW_PRIVATE": "true",
    }
    with service.running(home, database_url, broker_url, workers=(), **settings) as running:
        yield running


@pytest.fixture
def admin(page: Page) -> Page:
    """A page whose reader is signed in as an admin."""
    sign_in(page, ADMIN_KEY)
    expect(page.get_by_role("link", name="Admin")).to_be_visible()
    return page


def row(page: Page, text: str) -> Locator:
    return page.get_by_role("row").filter(has_text=text)


def opens(live: Service, secret: str) -> bool:
    return live.client.get("/jobs", headers=bearer(secret)).status_code == 200


def stored(page: Page) -> str:
    """Everything that the page has kept, and shows."""
    return str(page.evaluate("JSON.stringify([localStorage, sessionStorage, location.href])")) + page.content()


def test_key_is_made_by_keyboard_and_shown_once(admin: Page, live: Service) -> None:
    admin.goto("/#/admin/keys")
    admin.get_by_label("Owner").focus()
    admin.keyboard.type("carla")
    admin.keyboard.press("Tab")
    admin.keyboard.type("her laptop")
    admin.keyboard.press("Enter")
    secret = admin.locator("code.secret").inner_text()
    assert opens(live, secret)
    admin.keyboard.press("Escape")
    expect(admin.get_by_role("dialog")).to_have_count(0)
    expect(row(admin, "her laptop")).to_contain_text("Valid")
    assert secret not in stored(admin)
    row(admin, "her laptop").get_by_role("button", name="Revoke").click()
    dialog = admin.get_by_role("dialog")
    expect(dialog).to_contain_text("stops working at once")
    dialog.get_by_role("button", name="Revoke").click()
    expect(row(admin, "her laptop")).to_contain_text("Revoked")
    assert not opens(live, secret)


def test_rotated_key_works_beside_the_old_one(admin: Page, live: Service) -> None:
    end = (datetime.now(UTC) + timedelta(days=30)).isoformat()
    old = live.client.post("/keys", json={"owner": "dora", "name": "ci", "expires_at": end}, headers=ADMIN).json()
    admin.goto("/#/admin/keys?owner=dora")
    admin.get_by_role("button", name="Rotate").click()
    admin.get_by_role("dialog").get_by_role("button", name="Rotate").click()
    secret = admin.locator("code.secret").inner_text()
    admin.get_by_role("button", name="I have saved it").click()
    expect(row(admin, "dora")).to_have_count(2)
    assert secret != old["secret"]
    assert opens(live, secret)
    assert opens(live, old["secret"])
    new, _ = live.client.get("/keys?owner=dora", headers=ADMIN).json()["data"]
    assert (new["name"], new["admin"]) == ("ci", False)
    left = datetime.fromisoformat(new["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29) < left <= timedelta(days=30)


def test_limits_of_an_owner_are_edited(admin: Page, live: Service) -> None:
    live.client.put("/quotas/*", json={"queued_jobs": 70}, headers=ADMIN).raise_for_status()
    live.client.put("/quotas/erik", json={"bytes": 1_500_000_000}, headers=ADMIN).raise_for_status()
    admin.goto("/#/admin/owners")
    row(admin, "erik").get_by_role("button", name="Edit limits").click()
    expect(admin.get_by_label("Data (GB)")).to_have_value("1.5")
    admin.get_by_label("Running jobs").fill("2")
    admin.get_by_role("button", name="Save").click()
    expect(row(admin, "erik")).to_contain_text("0 / 2")
    expect(row(admin, "erik")).to_contain_text("0 / 70")
    quota = live.client.get("/quotas/erik", headers=ADMIN).json()
    assert quota["own_limits"] == {"running_jobs": 2, "queued_jobs": None, "bytes": 1_500_000_000}


def test_audit_log_is_filtered_and_older_entries_load(admin: Page, live: Service, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO audit (owner, action, target, request_id, data) SELECT 'admin', 'quota.put', 'fred', 'r', "
                "json_build_object('queued_jobs', n) FROM generate_series(0, 50) AS n"
            )
        )
    live.client.post("/keys", json={"owner": "fred"}, headers=ADMIN).raise_for_status()
    admin.goto("/#/admin/audit")
    expect(admin.locator("tbody tr").first).to_contain_text("key.create")
    admin.get_by_label("Object").fill("fred")
    expect(admin.locator("tbody tr").first).to_contain_text('{"queued_jobs":50}')
    expect(admin.locator("tbody tr")).to_have_count(50)
    admin.get_by_role("button", name="Load older").click()
    expect(admin.locator("tbody tr")).to_have_count(51)
    expect(admin.get_by_role("button", name="Load older")).to_have_count(0)
    admin.reload()
    expect(admin.get_by_label("Object")).to_have_value("fred")
    expect(admin.locator("tbody tr")).to_have_count(50)


def test_webhook_is_added_tried_and_deleted(page: Page, live: Service) -> None:
    key = live.client.post("/keys", json={"owner": "gina"}, headers=ADMIN).json()["secret"]
    sign_in(page, key)
    with receiving() as receiver:
        page.get_by_role("link", name="Webhooks").click()
        page.get_by_label("Address").fill(receiver.url)
        page.get_by_role("button", name="Add webhook").click()
        secret = page.locator("code.secret").inner_text()
        page.get_by_role("button", name="I have saved it").click()
        assert secret not in stored(page)
        receiver.statuses = [410]
        page.get_by_role("link", name=receiver.url).click()
        page.get_by_role("button", name="Send a ping").click()
        expect(row(page, "ping")).to_contain_text("410", timeout=20_000)
        expect(row(page, "ping")).to_contain_text("Failed")
        page.get_by_role("button", name="Enable").click()
        row(page, "ping").get_by_role("button", name="Send again").click()
        expect(row(page, "ping")).to_contain_text("Delivered", timeout=20_000)
        assert receiver.message(-1, secret)
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("its messages that wait")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No webhook yet.")).to_be_visible()
    assert live.client.get("/webhooks", headers=bearer(key)).json()["data"] == []


def test_secret_is_stored_used_and_deleted(page: Page, live: Service) -> None:
    key = live.client.post("/keys", json={"owner": "ines"}, headers=ADMIN).json()["secret"]
    sign_in(page, key)
    page.get_by_role("link", name="Secrets").click()
    page.get_by_label("Name").fill("mlflow")
    page.get_by_label("Value").fill("open-sesame")
    page.get_by_role("button", name="Store").click()
    expect(row(page, "mlflow")).to_contain_text("ines")
    assert "open-sesame" not in stored(page)
    tracking = {"mlflow": {"url": f"http://127.0.0.1:{free_port()}", "secret": "mlflow"}}
    recipe = {"model": "tiny", "dataset": "rows.jsonl", "tracking": tracking}
    job = live.client.post("/jobs", json=recipe, headers=bearer(key)).raise_for_status().json()
    page.goto(f"/#/jobs/{job['id']}")
    expect(page.get_by_text("the last try failed")).to_be_visible(timeout=20_000)
    page.get_by_role("link", name="Secrets").click()
    row(page, "mlflow").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No secret yet.")).to_be_visible()


def test_owner_finds_no_admin_page(page: Page, live: Service) -> None:
    key = live.client.post("/keys", json={"owner": "hans"}, headers=ADMIN).json()["secret"]
    sign_in(page, key)
    expect(page.get_by_role("link", name="Webhooks")).to_be_visible()
    expect(page.get_by_role("link", name="Admin")).to_have_count(0)
    page.goto("/#/admin/keys")
    expect(page.get_by_text("There is no such page.")).to_be_visible()


def test_copied_calls_do_what_the_button_does(admin: Page, live: Service) -> None:
    admin.goto("/#/admin/keys")
    admin.get_by_label("Owner").fill("ida")
    admin.get_by_label("Name").fill("Ida's")
    admin.get_by_role("button", name="Copy as…: New key").click()
    for kind in ("command", "curl"):
        text = admin.get_by_role("region", name=f"Create key: Copy as {kind}").inner_text()
        assert ADMIN_KEY not in text
        run_in_a_shell(text)
    made = live.client.get("/keys?owner=ida", headers=ADMIN).json()["data"]
    assert [(key["name"], key["admin"]) for key in made] == [("Ida's", False)] * 2
    admin.keyboard.press("Escape")
    expect(admin.get_by_role("dialog")).to_have_count(0)
    # Nothing was submitted meanwhile.
    assert len(live.client.get("/keys?owner=ida", headers=ADMIN).json()["data"]) == 2


def run_in_a_shell(text: str) -> None:
    own = str(Path(sys.executable).parent)
    environment = {**os.environ, "FINETUNED_API_KEY": ADMIN_KEY, "PATH": f"{own}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "sk-ft-" in done.stdout, done.stdout


def test_machine_shows_its_memory_and_who_held_it(admin: Page, live: Service, engine: sa.Engine) -> None:
    gpu = Gpu(uuid="GPU-1", name="NVIDIA A100", memory_bytes=80 * 2**30, compute_capability=(8, 0))
    recipe = {"model": "tiny", "dataset": "rows.jsonl"}
    job_id = live.client.post("/jobs", json=recipe, headers=ADMIN).json()["id"]
    with make_sessions(engine).begin() as session:
        workers.register(session, "gpu-a", "first", "localhost", Machine(gpus=[gpu], cores=8, cpu_bf16=True))
        for minutes, used, held in ((3, 1, []), (2, 30, [job_id]), (1, 20, [job_id])):
            at = sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, minutes)
            reading: dict[str, Any] = {"worker": "gpu-a", "device": 0, "used_bytes": used * 2**30, "jobs": held}
            session.execute(sa.insert(MemoryReading).values(**reading, at=at))
    admin.goto("/#/machines")
    machine = admin.get_by_role("region", name="gpu-a")
    expect(machine.get_by_role("img", name="0 · NVIDIA A100 (GiB). used: 1.000 → 20.00")).to_be_visible()
    expect(machine.get_by_role("listitem")).to_contain_text(job_id)
    expect(machine.get_by_role("listitem")).to_contain_text("peak 30.0 GiB")
    expect(machine.locator("canvas")).to_have_count(1)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("language", "scheme"), [("en-US", "light"), ("zh-CN", "dark")])
def test_dialogs_and_signing_in_have_no_serious_barrier(
    browser: Browser, live: Service, language: str, scheme: str
) -> None:
    context = browser.new_context(
        base_url=str(live.client.base_url),
        locale=language,
        color_scheme=scheme,  # type: ignore[arg-type]
        viewport={"width": 390, "height": 800},
    )
    tab = context.new_page()
    tab.goto("/")
    expect(tab.locator("#key")).to_be_focused()
    check(tab)
    tab.keyboard.type("wrong")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("alert")).to_be_visible()
    check(tab)
    tab.locator("#key").fill(ADMIN_KEY)
    tab.keyboard.press("Enter")
    expect(tab.locator("header.bar")).to_be_visible()
    for path, button in (("keys", "form button.plain"), ("owners", "tbody button"), ("keys", "form button.primary")):
        tab.goto(f"/#/admin/{path}")
        if button.endswith("primary"):
            tab.locator("form input").first.fill("jan")
        tab.locator(button).first.click()
        expect(tab.get_by_role("dialog")).to_be_visible()
        check(tab)
        tab.keyboard.press("Escape")
        expect(tab.get_by_role("dialog")).to_have_count(0)
    context.close()


def check(tab: Page) -> None:
    found = Axe().run(tab).response["violations"]
    serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
    assert serious == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
