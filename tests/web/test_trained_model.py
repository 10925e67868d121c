"""What the page does with what a job has trained: exports, pushes, evaluations, and new jobs from ratings."""

import json

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from contract.recipe import DatasetSource
from store import artifacts, evaluations
from store.evaluations import NewEvaluation
from store.models import EvaluatedRow
from store.session import Sessions, make_sessions
from tests.support.hub import ModelHub
from tests.support.service import Service

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def job(live: Service) -> str:
    """A job that has succeeded."""
    made = live.submit(name="steps=2")["id"]
    live.wait(made)
    return str(made)


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


def add_evaluation(sessions: Sessions, job_id: str, loss: float = 0.25) -> None:
    """One that has succeeded, with 21 rows."""
    scores = {"perplexity": None, "exact_match": 0.5, "token_f1": 0.5, "rouge_l": 0.5}
    of_models = {"base": {"loss": 2.5, **scores}, "adapter": {"loss": loss, **scores}}
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


def test_adapter_is_pushed_to_a_hub(page: Page, live: Service, hub: ModelHub, job: str) -> None:
    page.goto(f"/#/jobs/{job}/artifacts")
    pushes = page.get_by_role("region", name="Pushes to a hub")
    expect(pushes.get_by_text("Store the hub's token first")).to_be_visible()
    live.client.put("/secrets/hub", json={"value": next(iter(hub.tokens))}).raise_for_status()
    page.reload()
    pushes.get_by_label("Repo on the hub").fill("org/name")
    hub.going_on.set()
    pushes.get_by_role("button", name="Push", exact=True).click()
    expect(pushes.get_by_role("listitem")).to_contain_text("Succeeded", timeout=60_000)
    expect(pushes.get_by_role("listitem")).to_contain_text("adapter.tar → org/name · token hub")
    expect(pushes.get_by_role("link", name="org/name")).to_have_attribute("href", f"{hub.url}/org/name")
    assert "adapter_config.json" in hub.repos["org/name"].files()


def test_refused_push_says_why(page: Page, live: Service, hub: ModelHub, job: str) -> None:
    live.client.put("/secrets/hub", json={"value": next(iter(hub.tokens))}).raise_for_status()
    page.goto(f"/#/jobs/{job}/artifacts")
    pushes = page.get_by_role("region", name="Pushes to a hub")
    pushes.get_by_label("Repo on the hub").fill("strangers/name")
    pushes.get_by_role("button", name="Push", exact=True).click()
    refused = pushes.get_by_role("listitem").filter(has_text="strangers/name")
    expect(refused).to_contain_text("Failed", timeout=60_000)
    expect(refused.locator("[lang=en]")).to_contain_text("403")
    page.get_by_label("Language").select_option("zh")
    expect(page.get_by_role("region", name="推送到模型库")).to_contain_text("令牌 hub")


def test_evaluation_is_started_and_cancelled(page: Page, live: Service, job: str) -> None:
    page.goto(f"/#/jobs/{job}/samples")
    form = page.get_by_role("form", name="Evaluate")
    form.get_by_label("Dataset").select_option("Another: a path, or an id")
    form.get_by_role("textbox", name="Another: a path, or an id").fill("rows.jsonl")
    form.get_by_label("Most examples").fill("3")
    form.get_by_label("Most tokens of an answer").fill("7")
    form.get_by_role("button", name="Copy as…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"finetuned evaluate {job} --dataset rows.jsonl --limit 3 --max-new-tokens 7")
    dialog.get_by_role("button", name="Close").click()
    form.get_by_role("button", name="Evaluate", exact=True).click()
    started = page.get_by_role("region", name="Evaluations").get_by_role("group").filter(has_text="rows.jsonl")
    started.locator("summary").click()
    (made,) = live.client.get(f"/jobs/{job}/evaluations").json()["data"]
    assert {name: made["settings"][name] for name in ("limit", "max_new_tokens")} == {"limit": 3, "max_new_tokens": 7}
    started.get_by_role("button", name="Copy as…").click()
    expect(dialog).to_contain_text("curl -X DELETE")
    expect(dialog.get_by_role("button", name="Copy as command")).to_have_count(0)
    dialog.get_by_role("button", name="Close").click()
    started.locator("button.danger").click()
    dialog.locator("button.danger").click()
    expect(started).to_have_count(0)
    assert live.client.get(f"/jobs/{job}/evaluations").json()["data"] == []


def test_evaluations_of_several_jobs_are_compared(page: Page, live: Service, engine: sa.Engine) -> None:
    jobs = [live.submit(name=f"steps=2 number={number}")["id"] for number in (1, 2)]
    for job_id, loss in zip(jobs, (0.25, 0.125), strict=True):
        live.wait(job_id)
        add_evaluation(make_sessions(engine), job_id, loss)
    page.goto(f"/#/compare?jobs={','.join(jobs)}")
    compared = page.get_by_role("region", name="Evaluations")
    expect(compared.get_by_role("row").filter(has_text="number=2")).to_contain_text("0.1250 ★ best (base 2.5000)")
    expect(compared.get_by_role("row").filter(has_text="number=1")).not_to_contain_text("0.2500 ★")
    compared.get_by_text("Answers side by side").click()
    answers = compared.get_by_role("region", name="Answers side by side")
    expect(answers.get_by_role("row").nth(1)).to_contain_text("Question 1?")
    assert answers.get_by_role("columnheader").all_inner_texts()[2:] == [
        "Base model",
        "steps=2 number=1",
        "steps=2 number=2",
    ]
    compared.get_by_role("button", name="Further examples").click()
    expect(answers.get_by_text("adapter says 21")).to_have_count(2)


@pytest.mark.parametrize("language", ["en", pytest.param("zh", marks=pytest.mark.exhaustive)])
def test_trained_model_fits_a_phone(page: Page, live: Service, engine: sa.Engine, language: str) -> None:
    job, running = (live.submit(name=name)["id"] for name in ("steps=2", "steps=4000 sleep=0.05"))
    live.wait(job)
    live.wait(running, "running")
    add_evaluation(make_sessions(engine), job)
    rate(live, job, 1)
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto("/")
    page.locator("header select").first.select_option(language)
    for path, folded, shown in (
        (f"jobs/{job}/artifacts", None, "#pushes"),
        (f"jobs/{job}/samples", "[aria-labelledby=evaluations] summary", "table.samples"),
        (f"chat?job={job}", "[aria-labelledby=ratings] summary", "table.samples"),
        ("machines", None, f"table.devices a[href$={running}]"),
    ):
        page.goto(f"/#/{path}")
        if folded:
            page.locator(folded).first.click()
        expect(page.locator(shown)).to_be_visible()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"{path} is {width} px wide on a phone"
    live.ask("cancel", running)


def rate(live: Service, job: str, number: int) -> None:
    rating = {"messages": [{"role": "user", "content": f"Question {number}?"}], "model": "tiny", "label": True}
    answer = {"role": "assistant", "content": "Yes."}
    live.client.post(f"/jobs/{job}/ratings", json={**rating, "answer": answer}).raise_for_status()


def test_ratings_become_a_new_job(page: Page, live: Service, job: str) -> None:
    rate(live, job, 1)
    page.goto(f"/#/chat?job={job}")
    page.get_by_role("button", name="Train with KTO on these").click()
    expect(page.get_by_role("heading", name="New job")).to_be_visible()
    recipe = json.loads(page.get_by_label("JSON to post").input_value())
    dataset = live.client.get(f"/datasets/{recipe.pop('dataset')}").json()
    assert (dataset["filename"], dataset["rows"]) == ("ratings-kto.jsonl", 1)
    assert recipe == {"model": "tiny", "method": {"type": "kto"}, "adapter": {"start_from": job}}


def test_answer_that_is_given_up_halfway_is_no_answer(page: Page, live: Service) -> None:
    job = live.submit(name="steps=2")["id"]
    live.wait(job)
    for number in (1, 2, 3):
        rate(live, job, number)
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
    page.get_by_text("Newest ratings").click()
    rows = page.get_by_role("region", name="Ratings").last.get_by_role("row")
    for count in (3, 2):
        with page.expect_response(lambda response: response.request.method == "DELETE"):
            rows.nth(count).get_by_role("button", name="Delete", exact=True).click()
    expect(rows).to_have_count(2)
