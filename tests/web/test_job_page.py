"""What a job's page says of a run, and the jobs compared with each other."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Locator, Page, expect

from contract.recipe import DatasetSource
from store import artifacts, evaluations
from store.evaluations import NewEvaluation
from store.models import EvaluatedRow
from store.session import Sessions, make_sessions
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
    assert "status failed" in (tmp_path / "live.log").read_text()
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


def test_adapter_is_exported_in_a_chosen_format(page: Page, live: Service) -> None:
    job = live.submit(name="steps=2")
    live.wait(job["id"])
    page.goto(f"/#/jobs/{job['id']}/artifacts")
    page.get_by_label("Format").select_option("gguf")
    page.get_by_role("button", name="Export", exact=True).click()
    expect(page.get_by_role("region", name="Exports")).to_contain_text("adapter.tar → gguf")
    expect(page.get_by_role("link", name="gguf.tar")).to_be_visible(timeout=60_000)


def test_evaluation_shows_scores_and_answers_side_by_side(page: Page, live: Service, engine: sa.Engine) -> None:
    job = live.submit(name="steps=2")["id"]
    live.wait(job)
    add_evaluation(make_sessions(engine), job)
    page.goto(f"/#/jobs/{job}/samples")
    evaluations = page.get_by_role("region", name="Evaluations")
    evaluations.get_by_text("held-out.jsonl").click()
    expect(evaluations.get_by_role("row").filter(has_text="0.2500")).to_contain_text("Adapter")
    answers = evaluations.get_by_role("region", name="Answers side by side")
    expect(answers.get_by_role("row").nth(1)).to_contain_text("Question 1?")
    expect(answers.get_by_text("base says 20")).to_be_visible()
    evaluations.get_by_role("button", name="Further examples").click()
    expect(answers.get_by_text("adapter says 21")).to_be_visible()
    expect(evaluations.get_by_role("button", name="Further examples")).to_be_disabled()
    page.get_by_label("Language").select_option("zh")
    expect(page.get_by_role("region", name="评测")).to_contain_text("基础模型")


def add_evaluation(sessions: Sessions, job_id: str) -> None:
    """One that has succeeded, with 21 rows."""
    scores = {"perplexity": None, "exact_match": 0.5, "token_f1": 0.5, "rouge_l": 0.5}
    of_models = {"base": {"loss": 2.5, **scores}, "adapter": {"loss": 0.25, **scores}}
    with sessions.begin() as session:
        adapter = artifacts.get(session, job_id, artifacts.ADAPTER)
        settings = {"limit": 200, "max_length": 99, "max_new_tokens": 9, "temperature": 0, "seed": 0}
        new = NewEvaluation(adapter, DatasetSource(path="held-out.jsonl", sha256="0" * 64), settings, 21)
        made = evaluations.create(session, job_id, new, None)
        made.status, made.scores, made.done = "succeeded", {"examples": 21, "supervised_tokens": 9, **of_models}, 21
        answered = {"finish": "stop", "loss": 1, **dict.fromkeys(scores, 0.5)}
        for number in range(1, 22):
            row = {"number": number, "prompt": f"Question {number}?", "reference": "Yes.", "supervised_tokens": 1}
            said = {name: {"answer": f"{name} says {number}", **answered} for name in of_models}
            session.add(EvaluatedRow(evaluation_id=made.id, number=number, data=row | said))


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


def test_answer_that_is_given_up_halfway_is_no_answer(page: Page, live: Service) -> None:
    job = live.submit(name="steps=2")["id"]
    live.wait(job)
    for number in (1, 2, 3):
        rating = {"messages": [{"role": "user", "content": f"Question {number}?"}], "model": "tiny", "label": True}
        rating["answer"] = {"role": "assistant", "content": "Yes."}
        live.client.post(f"/jobs/{job}/ratings", json=rating).raise_for_status()
    # The second answer begins to arrive, and goes on only to be given up.
    page.add_init_script("""
        const own = window.fetch;
        let count = 0;
        window.fetch = async (path, options) => {
            if (!String(path).includes("/ratings?") || ++count !== 2) return own(path, options);
            const body = new ReadableStream({ start: (control) => {
                control.enqueue(new TextEncoder().encode('{"data": ['));
                options.signal.addEventListener("abort", () => control.error(options.signal.reason));
            } });
            return new Response(body, { headers: { "content-type": "application/json" } });
        };
    """)
    page.goto(f"/#/chat?job={job}")
    page.get_by_text("The newest ones").click()
    rows = page.get_by_role("region", name="Ratings").last.get_by_role("row")
    for count in (3, 2):
        with page.expect_response(lambda response: response.request.method == "DELETE"):
            rows.nth(count).get_by_role("button", name="Delete").click()
    expect(rows).to_have_count(2)
