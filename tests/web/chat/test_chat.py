"""Talking to a job's models in the dashboard, with a model that answers."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, Request, expect

from tests.support.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

START_MS = 90_000
"""Longest that the model's server takes to start on a busy machine."""


def answer(page: Page, model: str) -> Locator:
    return page.get_by_role("region", name=model, exact=True)


def ask(page: Page, question: str) -> None:
    page.get_by_role("textbox", name="Your question").fill(question)
    # While an answer arrives, Enter sends nothing.
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible(timeout=START_MS)
    page.keyboard.press("Enter")


def open_chat(page: Page, job_id: str, **query: str) -> None:
    query = {"max_tokens": "16", **query}
    page.goto(f"/#/chat?job={job_id}" + "".join(f"&{name}={value}" for name, value in query.items()))
    expect(page.get_by_role("textbox", name="Your question")).to_be_visible()


def save(page: Page, link: str, folder: Path) -> list[dict[str, object]]:
    with page.expect_download() as started:
        page.get_by_role("link", name=link).click()
    started.value.save_as(folder / link)
    return [json.loads(line) for line in (folder / link).read_text().splitlines()]


def test_question_is_answered_by_each_model_as_text(page: Page, job_id: str) -> None:
    page.goto(f"/#/jobs/{job_id}")
    page.get_by_role("button", name="Chat").click()
    page.get_by_label("Add a model").select_option("step-2")
    ask(page, "<b>Hi</b>")
    for model in ("Base: tiny", "Fine-tuned model", "Checkpoint of step 2"):
        expect(answer(page, model)).to_contain_text("tokens · first after", timeout=START_MS)
        assert answer(page, model).locator("p.text").inner_text().strip()
    expect(page.get_by_text("<b>Hi</b>")).to_be_visible()
    said = answer(page, "Base: tiny").locator("p.text").inner_text()
    page.reload()
    expect(answer(page, "Checkpoint of step 2")).to_be_visible()
    assert answer(page, "Base: tiny").locator("p.text").inner_text() == said
    page.get_by_role("button", name="Again").click()
    assert "seed=1" in page.url


def test_rated_answers_are_downloaded_as_rows(page: Page, live: Service, job_id: str, tmp_path: Path) -> None:
    # With these the model comes upon the end of its answer, without a character that is no text.
    open_chat(page, job_id, max_tokens="400", temperature="1.5", seed="5")
    page.get_by_role("button", name="Held-out example").click()
    reference = answer(page, "Reference answer")
    expect(reference).to_be_visible()
    page.get_by_role("textbox", name="Your question").press("Enter")
    tuned = answer(page, "Fine-tuned model")
    tuned.get_by_role("button", name="Better", exact=True).click(timeout=START_MS)
    expect(page.get_by_text("Good: 0 · Bad: 0 · Pairs: 1")).to_be_visible()
    answer(page, "Base: tiny").get_by_role("button", name="Bad", exact=True).click()
    expect(page.get_by_text("Good: 0 · Bad: 1 · Pairs: 1")).to_be_visible()
    (pair,) = save(page, "Download for DPO", tmp_path)
    held_out = live.client.get(f"/jobs/{job_id}/held-out").json()["example"]
    assert pair["input"] == {"messages": held_out["messages"]}
    assert reference.locator("p").inner_text() == held_out["reference"]["content"]
    (row,) = save(page, "Download for KTO", tmp_path)
    assert row["label"] is False
    tuned.get_by_role("button", name="Better", exact=True).click()
    expect(page.get_by_text("Good: 0 · Bad: 1 · Pairs: 0")).to_be_visible()


def test_model_that_does_not_answer_is_removed_or_stopped(page: Page, live: Service, job_id: str) -> None:
    open_chat(page, job_id, **{"with": "base,model"})
    ask(page, "Hi?")
    expect(page.get_by_text("first after")).to_have_count(2, timeout=START_MS)
    tuned, status = answer(page, "Fine-tuned model"), page.get_by_role("status")
    expect(status).to_have_text("The answers are finished.")
    with halted(live):
        ask(page, "And now?")
        expect(tuned.get_by_text("Waiting for the model")).to_be_visible()
        with page.expect_event("requestfailed"):
            page.get_by_role("button", name="Remove Base: tiny").click()
        expect(status).to_have_text("Waiting for answers.")
        page.keyboard.press("Escape")
        expect(tuned.get_by_text("stopped")).to_be_visible()
        expect(status).to_have_text("An answer was interrupted.")
    ask(page, "And then?")
    expect(page.get_by_text("first after")).to_have_count(2, timeout=START_MS)


def test_rating_an_earlier_answer_keeps_the_later_ones(page: Page, live: Service, job_id: str) -> None:
    open_chat(page, job_id, **{"with": "base"})
    for count, question in ((1, "Hi?"), (2, "And now?")):
        ask(page, question)
        expect(page.get_by_text("first after")).to_have_count(count, timeout=START_MS)
    bad = answer(page, "Base: tiny").first.get_by_role("button", name="Bad", exact=True)
    bad.click()
    expect(bad).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_text("first after")).to_have_count(2)
    # Deleted elsewhere, it is taken back here all the same.
    (rating,) = live.client.get(f"/jobs/{job_id}/ratings", params={"limit": 1}).json()["data"]
    assert [each["content"] for each in rating["messages"]] == ["Hi?"]
    live.client.delete(f"/jobs/{job_id}/ratings/{rating['id']}").raise_for_status()
    bad.click()
    expect(bad).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_answer_that_was_cut_can_only_be_bad(page: Page, job_id: str) -> None:
    open_chat(page, job_id, max_tokens="1")
    ask(page, "Hi?")
    for model in ("Base: tiny", "Fine-tuned model"):
        expect(answer(page, model)).to_contain_text("can only be rated as bad", timeout=START_MS)
        assert answer(page, model).get_by_role("group").get_by_role("button").all_inner_texts() == ["Bad", "Copy as…"]


def test_conversation_is_found_again_with_all_its_parts(page: Page, job_id: str) -> None:
    open_chat(page, job_id, system="Be%20brief.", **{"with": "base"})
    page.get_by_role("button", name="Held-out example").click()
    question = page.get_by_role("textbox", name="Your question")
    expect(question).not_to_have_value("")
    draft = question.input_value()
    # The Enter that ends a word of an input method, as Safari has it.
    question.dispatch_event("keydown", {"key": "Enter", "keyCode": 229, "bubbles": True, "cancelable": True})
    page.reload()
    expect(question).to_have_value(draft)
    page.goto(f"/#/jobs/{job_id}")
    page.get_by_role("button", name="Chat").click()
    expect(question).to_have_value(draft)
    expect(page).to_have_url(re.compile(r"with=base.*system=Be\+brief\.&example=0"))
    question.press("Enter")
    expect(page.get_by_role("status")).to_have_text("The answers are finished.", timeout=START_MS)
    # As if a checkpoint had answered that was deleted later.
    page.evaluate("""() => {
        const kept = JSON.parse(sessionStorage.conversation);
        kept.answers["step-99"] = kept.answers.base;
        sessionStorage.conversation = JSON.stringify(kept);
    }""")
    page.reload()
    gone = answer(page, "Checkpoint of step 99 (no longer there)")
    expect(gone).to_contain_text("tokens")
    expect(gone.get_by_role("button")).to_have_count(0)


def test_full_storage_of_the_tab_is_told(page: Page, job_id: str) -> None:
    open_chat(page, job_id, **{"with": "base"})
    page.evaluate("""() => {
        let [size, count] = [2 ** 20, 0];
        while (size >= 1)
            try { sessionStorage.setItem(`full${count++}`, "x".repeat(size)); } catch { size /= 2; }
    }""")
    ask(page, "Hi?")
    expect(page.get_by_role("status")).to_contain_text("will not survive a reload")
    expect(page.get_by_text("first after")).to_be_visible(timeout=START_MS)


def test_each_model_has_its_own_conversation(page: Page, job_id: str) -> None:
    requests: list[dict[str, Any]] = []

    def keep(sent: Request) -> None:
        if sent.url.endswith("/v1/chat/completions"):
            requests.append(json.loads(sent.post_data or ""))

    page.on("request", keep)
    open_chat(page, job_id, system="Be%20brief.")
    for count, question in ((2, "Hi?"), (4, "And now?")):
        ask(page, question)
        expect(page.get_by_text("first after")).to_have_count(count, timeout=START_MS)
        expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    assert {(sent["temperature"], sent["seed"]) for sent in requests} == {(0.7, 0)}
    for model, sent in zip(("Base: tiny", "Fine-tuned model"), requests[2:], strict=True):
        said = answer(page, model).first.locator("p.text").text_content()
        assert [each["content"] for each in sent["messages"]] == ["Be brief.", "Hi?", said, "And now?"]


@contextmanager
def halted(live: Service) -> Iterator[None]:
    """No inference server goes on meanwhile."""
    pids = [pid for pid in live.everything() if "inference" in " ".join(psutil.Process(pid).cmdline())]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_refusal_is_explained_in_the_readers_language(page: Page, job_id: str) -> None:
    open_chat(page, job_id, **{"with": "base"})
    ask(page, "hello " * 600)
    refused = answer(page, "Base: tiny").get_by_role("alert")
    expect(refused).to_contain_text("longer than the model can take", timeout=START_MS)
    page.get_by_label("Language").select_option("zh")
    expect(page.get_by_role("alert")).to_contain_text("请清空对话")
    page.get_by_role("button", name="清空").click()
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize(
    ("language", "scheme"), [("en-US", "dark"), pytest.param("zh-CN", "light", marks=pytest.mark.exhaustive)]
)
def test_chat_has_no_serious_barrier_on_a_phone(
    browser: Browser, live: Service, job_id: str, language: str, scheme: str
) -> None:
    context = browser.new_context(
        base_url=str(live.client.base_url),
        locale=language,
        color_scheme=scheme,  # type: ignore[arg-type]
        viewport={"width": 390, "height": 800},
    )
    tab = context.new_page()
    tab.goto("/#/chat")
    tab.get_by_role("link", name="Greeter").click()
    tab.locator("textarea").last.fill("Hi?")
    tab.keyboard.press("Enter")
    expect(tab.locator(".verdicts")).to_have_count(2, timeout=START_MS)
    tab.locator("details.settings summary").click()
    found = Axe().run(tab).response["violations"]
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert serious == [], json.dumps([(each["id"], each["nodes"][0]["html"]) for each in serious])
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()
