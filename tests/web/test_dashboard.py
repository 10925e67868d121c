"""What a reader of the dashboard does, in a real browser."""

import json
import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Download, Page, expect

from tests.support.service import Service
from tests.support.waiting import until

pytestmark = pytest.mark.slow

LONG = "steps=4000 every=500 sleep=0.05"


def fact(page: Page, name: str) -> str:
    return page.locator("dl.facts div", has=page.get_by_text(name, exact=True)).locator("dd").inner_text()


def shown_step(page: Page) -> int:
    return int(re.match(r"[\d,]+|–", fact(page, "Step"))[0].replace(",", "").replace("–", "0"))  # type: ignore[index]


def open_job(page: Page, job_id: str, tab: str = "") -> None:
    page.goto(f"/#/jobs/{job_id}{tab and f'/{tab}'}")
    expect(page.locator("dl.facts")).to_be_visible()


def test_first_page_teaches_the_first_step(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", name="No job yet")).to_be_visible()
    expect(page.get_by_text("finetuned submit")).to_be_visible()


def test_jobs_appear_and_change_without_a_reload(page: Page, live: Service) -> None:
    page.goto("/")
    job = live.submit(name="steps=3")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="steps=3", exact=True))
    expect(row).to_contain_text("Succeeded", timeout=30_000)
    expect(row).to_contain_text(f"{live.job(job['id'])['progress']['loss']:.4f}")


def test_curve_goes_on_when_the_api_is_killed(page: Page, live: Service) -> None:
    job = live.submit(name=LONG)
    live.wait_for_step(job["id"], 5)
    open_job(page, job["id"])
    seen = until(lambda: shown_step(page) >= 5 and shown_step(page))
    live.api.kill()
    live.api.wait()
    expect(page.get_by_role("status")).to_contain_text("No connection")
    live.start_api()
    until(lambda: shown_step(page) > seen + 20, seconds=60)
    expect(page.get_by_role("status")).to_have_count(0)
    page.reload()
    until(lambda: shown_step(page) > seen + 20)
    live.ask("cancel", job["id"])


def test_page_that_was_offline_catches_up(page: Page, live: Service) -> None:
    job = live.submit(name="steps=60 every=10 sleep=0.1")
    live.wait_for_step(job["id"], 3)
    open_job(page, job["id"], "events")
    page.context.set_offline(True)
    live.wait(job["id"], seconds=60)
    page.context.set_offline(False)
    expect(page.locator("span.status.succeeded")).to_be_visible(timeout=30_000)
    until(lambda: shown_step(page) == 60)
    stored = [kind for kind, _, _ in live.events(job["id"]) if kind not in ("metric", "queue")]
    until(lambda: page.locator("ol.events li").count() >= len(stored))
    listed = [kind for kind in page.locator("ol.events strong").all_inner_texts() if kind != "queue"]
    assert sorted(listed) == sorted(stored)


def test_cancel_says_what_it_does_first(page: Page, live: Service) -> None:
    job = live.submit(name=LONG)
    live.wait_for_step(job["id"], 1)
    open_job(page, job["id"])
    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("The job saves and ends")
    dialog.get_by_role("button", name="Keep it").click()
    assert live.job(job["id"])["requested_action"] is None
    page.get_by_role("button", name="Cancel").click()
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator("header.job span.status.cancelled")).to_be_visible(timeout=30_000)
    expect(page.get_by_role("button", name="Retry")).to_be_visible()


def test_selected_jobs_are_compared(page: Page, live: Service) -> None:
    for rate, name in ((0.001, "steps=4"), (0.002, "steps=5")):
        live.wait(live.submit(name=name, optimizer={"learning_rate": rate})["id"])
    page.goto("/#/jobs?q=steps")
    for name in ("steps=4", "steps=5"):
        page.get_by_role("checkbox", name=f"Select {name}", exact=True).check()
    page.get_by_role("button", name="Compare").click()
    row = page.get_by_role("row").filter(has_text="optimizer.learning_rate")
    expect(row).to_contain_text("0.001")
    expect(row).to_contain_text("0.002")
    expect(page.get_by_role("row").filter(has_text="batch.max_length")).to_have_count(0)


def test_artifact_and_csv_are_downloaded(page: Page, live: Service, tmp_path: Path) -> None:
    job = live.submit(name="steps=7")
    live.wait(job["id"])
    open_job(page, job["id"], "artifacts")
    adapter = save(page, "adapter.tar", tmp_path)
    assert adapter.read_bytes() == live.client.get(f"/jobs/{job['id']}/artifacts/adapter.tar").content
    open_job(page, job["id"])
    rows = save(page, "CSV of every step", tmp_path).read_text().splitlines()
    assert len(rows) == 1 + 7


def save(page: Page, link: str, folder: Path) -> Path:
    with page.expect_download() as started:
        page.get_by_role("link", name=link).click()
    download: Download = started.value
    download.save_as(folder / download.suggested_filename)
    return folder / download.suggested_filename


def test_address_keeps_what_the_reader_chose(page: Page, live: Service) -> None:
    job = live.submit(name="steps=20")
    live.wait(job["id"])
    open_job(page, job["id"])
    page.get_by_label("x axis").select_option("epoch")
    page.get_by_label("Log scale").check()
    page.reload()
    expect(page.get_by_label("x axis")).to_have_value("epoch")
    expect(page.get_by_label("Log scale")).to_be_checked()


def test_table_is_used_by_keyboard(page: Page, live: Service) -> None:
    page.goto("/#/jobs?status=succeeded")
    table = page.get_by_role("region", name="Jobs")
    table.focus()
    first = page.locator("tbody tr[aria-rowindex='2'] a").inner_text()
    second = page.locator("tbody tr[aria-rowindex='3'] a").inner_text()
    assert first != second
    page.keyboard.press("ArrowDown")
    page.keyboard.press("x")
    expect(page.get_by_role("checkbox", name=f"Select {second}", exact=True)).to_be_checked()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.press("Escape")
    table.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=second)).to_be_visible()


# Colours do not depend on the language.
@pytest.mark.exhaustive
@pytest.mark.parametrize(("language", "scheme"), [("en-US", "light"), ("zh-CN", "dark")])
def test_no_page_has_a_serious_barrier(browser: Browser, live: Service, language: str, scheme: str) -> None:
    job = live.submit(name="steps=5 every=2")
    live.wait(job["id"])
    context = browser.new_context(
        base_url=str(live.client.base_url),
        locale=language,
        color_scheme=scheme,  # type: ignore[arg-type]
        viewport={"width": 390, "height": 800},
    )
    tab = context.new_page()
    webhook = live.client.post("/webhooks", json={"url": "http://nowhere.invalid/"}).json()["id"]
    live.client.post(f"/webhooks/{webhook}/test").raise_for_status()
    tabs = [
        f"jobs/{job['id']}/{each}" for each in ("curves", "recipe", "events", "log", "samples", "artifacts", "usage")
    ]
    admin = ["webhooks", f"webhooks/{webhook}", *(f"admin/{each}" for each in ("keys", "owners", "audit"))]
    trained = [f"compare?jobs={job['id']}", f"chat?job={job['id']}", *tabs]
    for path in ("jobs", "new", "sweeps", "machines", "secrets", *trained, *admin):
        tab.goto(f"/#/{path}")
        expect(tab.locator("main :is(h1, p, dl)").first).to_be_visible()
        tab.wait_for_load_state("networkidle") if path in ("machines", "secrets", *admin) else None
        found = Axe().run(tab).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert serious == [], json.dumps([(each["id"], each["nodes"][0]["html"]) for each in serious])
        width = tab.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{path} is {width} px wide on a phone"
    live.client.delete(f"/webhooks/{webhook}").raise_for_status()
    context.close()


def test_sweep_shows_its_best_and_stops_the_rest(page: Page, live: Service) -> None:
    recipe = {"model": "tiny", "dataset": "rows.jsonl", "name": "steps=4000 sleep=0.05"}
    sweep = live.client.post("/sweeps", json={"recipe": recipe, "grid": {"adapter.r": [8, 16, 32]}}).json()
    page.goto("/#/sweeps")
    page.get_by_role("link", name=recipe["name"]).click()
    expect(page.get_by_text("★ best")).to_have_count(1, timeout=30_000)
    page.get_by_role("button", name="Stop the rest").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop the rest").click()
    expect(page.locator("span.status.cancelled")).to_have_count(2, timeout=60_000)
    live.client.post(f"/sweeps/{sweep['id']}/cancel").raise_for_status()


def test_job_is_submitted_by_the_form(page: Page, live: Service) -> None:
    page.goto("/#/new")
    recipe = {"model": "tiny", "dataset": "rows.jsonl", "name": "steps=3", "adapter": {"r": 4}}
    page.get_by_label("JSON to post").fill(json.dumps(recipe))
    expect(page.get_by_role("button", name="Submit", exact=True)).to_be_enabled()
    page.reload()
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("heading", name="steps=3")).to_be_visible(timeout=30_000)
    job_id = page.url.rpartition("/")[2]
    assert live.job(job_id)["recipe"]["adapter"]["r"] == 4
    page.get_by_role("button", name="Clone").click()
    expect(page.get_by_label("JSON to post")).to_have_value(re.compile('"r": 4'))


def test_form_writes_the_recipe(page: Page, live: Service) -> None:
    page.goto("/#/new")
    page.locator("#field-model").select_option("tiny")
    page.locator("#field-dataset\\.path").select_option(label="Another: a path, or an id")
    page.get_by_label("Another: a path, or an id").fill("rows.jsonl")
    page.locator("#field-name").fill("steps=2")
    page.locator("#field-adapter\\.r").fill("8")
    page.get_by_role("button", name="Submit", exact=True).click()
    expect(page.get_by_role("heading", name="steps=2")).to_be_visible(timeout=30_000)
    recipe = live.job(page.url.rpartition("/")[2])["recipe"]
    assert (recipe["model"], recipe["dataset"]["path"], recipe["adapter"]["r"]) == ("tiny", "rows.jsonl", 8)


def test_another_method_drops_the_options_that_it_lacks(page: Page) -> None:
    page.goto("/#/new")
    text = page.get_by_label("JSON to post")
    method = {"type": "dpo", "beta": 0.3, "loss": "ipo"}
    text.fill(json.dumps({"method": method, "optimizer": {"learning_rate": 2e-4}}))
    chosen = page.locator("#field-method\\.type")
    page.locator("details", has=chosen).locator("summary").click()
    chosen.select_option(label="simpo")
    expect(chosen).to_have_value('"simpo"')
    kept = {"method": {"type": "simpo", "beta": 0.3}, "optimizer": {"learning_rate": 2e-4}}
    assert json.loads(text.input_value()) == kept


def test_empty_field_shows_what_its_method_has(page: Page) -> None:
    page.goto("/#/new")
    rate, beta = page.locator("#field-optimizer\\.learning_rate"), page.locator("#field-method\\.beta")
    expect(rate).to_have_attribute("placeholder", "0.0002")
    page.get_by_label("JSON to post").fill(json.dumps({"method": "simpo"}))
    expect(rate).to_have_attribute("placeholder", "0.000005")
    expect(beta).to_have_attribute("placeholder", "2")
