"""What a job's page says of a run, and the jobs compared with each other."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.service import Service
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def test_failure_is_explained_in_the_readers_language(page: Page, live: Service) -> None:
    job = live.submit(name="steps=2 fail=loss_not_finite")
    failure = live.wait(job["id"])["failure"]
    page.goto(f"/#/jobs/{job['id']}")
    words = page.get_by_role("region", name="Why it failed")
    expect(words).to_contain_text("The loss became infinite")
    expect(words).to_contain_text("Lower optimizer.learning_rate")
    expect(words).to_contain_text(failure["message"])
    page.get_by_label("Language").select_option("zh")
    expect(page.get_by_role("region", name="失败原因")).to_contain_text("降低 optimizer.learning_rate")
    page.goto("/#/jobs")
    expect(page.get_by_role("row").filter(has_text="loss_not_finite")).to_contain_text("损失变为无穷大或非数值")
    page.goto("/#/new")
    expect(page.locator("#field-adapter\\.r-help")).to_contain_text("的秩")


def test_log_is_searched_and_downloaded(page: Page, live: Service, tmp_path: Path) -> None:
    job = live.submit(name="steps=2 fail=recipe_invalid leak")
    live.wait(job["id"])
    page.goto(f"/#/jobs/{job['id']}/log")
    log = page.get_by_role("log")
    expect(log).to_contain_text("WARNING")
    page.get_by_label("Find in the log").fill("warning")
    expect(page.get_by_text(re.compile(r"^1 of \d+ lines$"))).to_be_visible()
    with page.expect_download() as started:
        page.get_by_role("button", name="Download").click()
    started.value.save_as(tmp_path / "live.log")
    assert re.search(r"status +failed", (tmp_path / "live.log").read_text())
    page.get_by_label("Find in the log").fill("authorization")
    page.get_by_label("Log", exact=True).and_(page.get_by_role("combobox")).select_option("trainer.log")
    expect(log).to_contain_text("Authorization: ")
    assert "WARNING" not in log.inner_text()


def test_plan_is_beside_what_a_job_took(page: Page, live: Service) -> None:
    job = live.submit(name="steps=3")
    live.wait(job["id"])
    page.goto(f"/#/jobs/{job['id']}/usage")
    steps = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="Steps"))
    expect(steps.get_by_role("cell").nth(1)).to_have_text("3")
    peak = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="Peak memory"))
    assert peak.get_by_role("cell").nth(1).inner_text() != "–"
    expect(page.get_by_text("None had to be killed")).to_be_visible()


def test_zoom_is_kept_in_the_address(page: Page, live: Service) -> None:
    job = live.submit(name="steps=50")
    live.wait(job["id"])
    page.goto(f"/#/jobs/{job['id']}")
    plot = page.locator(".u-over").first
    plot.wait_for()
    until(lambda: drags_over_half(page, plot))
    page.mouse.up()
    expect(page.get_by_role("button", name="Whole run")).to_be_visible()
    assert "zoom=" in page.url
    page.reload()
    page.get_by_role("button", name="Whole run").click()
    expect(page.get_by_role("button", name="Whole run")).to_have_count(0)
    assert "zoom=" not in page.url


def drags_over_half(page: Page, plot: Locator) -> bool:
    """False where the plot was replaced or moved meanwhile, as it may be while the page is read."""
    page.mouse.up()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 50, steps=5)
    page.evaluate("new Promise(requestAnimationFrame)")
    return bool(page.locator(".u-select").first.evaluate("select => select.offsetWidth > 100"))


def test_compared_curves_grow_while_their_jobs_run(page: Page, live: Service) -> None:
    jobs = [live.submit(name="steps=4000 sleep=0.05")["id"] for _ in range(2)]
    for job_id in jobs:
        live.wait_for_step(job_id, 3)
    page.goto(f"/#/compare?jobs={','.join(jobs)}")
    plot = page.locator("figure.chart [role=img]")
    before = plot.get_attribute("aria-label")
    assert before is not None
    until(lambda: plot.get_attribute("aria-label") != before, seconds=30)
    for job_id in jobs:
        live.client.post(f"/jobs/{job_id}/cancel", params={"force": True}).raise_for_status()
    expect(page.locator("span.status.cancelled")).to_have_count(2, timeout=60_000)
