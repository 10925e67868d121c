"""What people think of answers: stored at a job, and downloaded as datasets that can be learned."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from store import ratings
from store.session import Sessions
from tests.support.api import post_job, upload
from tests.support.jobs import create_job

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?\u2028"}]
GOOD: dict[str, Any] = {
    "messages": QUESTION,
    "answer": {"role": "assistant", "content": "Me."},
    "model": "tiny",
    "label": True,
}
BAD = {**GOOD, "answer": {"role": "assistant", "content": "Nobody."}, "label": False}
PAIR = {
    **{name: value for name, value in GOOD.items() if name != "label"},
    "rejected": BAD["answer"],
    "rejected_model": "ft:tiny:anna::" + "0" * 24,
}


@pytest.fixture
def path(sessions: Sessions) -> str:
    return f"/jobs/{create_job(sessions)}/ratings"


def rate(client: TestClient, path: str, *given: dict[str, Any]) -> list[dict[str, Any]]:
    answers = [client.post(path, json=each) for each in given]
    assert [answer.status_code for answer in answers] == [201] * len(given), answers[-1].text
    return [answer.json() for answer in answers]


def rows(client: TestClient, path: str) -> list[dict[str, Any]]:
    answer = client.get(path)
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.split("\n")[:-1]]


def test_rating_is_listed_counted_and_deleted(client: TestClient, path: str) -> None:
    made = rate(client, path, GOOD, BAD, PAIR)
    assert (made[0]["label"], made[0]["owner"], made[2]["rejected"]) == (True, "default", BAD["answer"])
    listed = client.get(path, params={"limit": 2}).json()
    assert listed == {"data": [made[2], made[1]], "has_more": True, "desirable": 1, "undesirable": 1, "preferences": 1}
    assert client.get(path, params={"after": made[1]["id"]}).json()["data"] == [made[0]]
    assert client.delete(f"{path}/{made[2]['id']}").json() == {"id": made[2]["id"], "deleted": True}
    assert client.delete(f"{path}/{made[2]['id']}").status_code == 404
    assert client.get(path).json()["preferences"] == 0


@pytest.mark.parametrize("method", ["kto", "dpo"])
def test_downloaded_ratings_are_a_dataset_of_the_method(client: TestClient, path: str, method: str) -> None:
    rate(client, path, GOOD, BAD, PAIR)
    answer = client.get(f"{path}-{method}.jsonl")
    assert f'-{method}.jsonl"' in answer.headers["content-disposition"]
    dataset = upload(client, answer.content, f"{method}.jsonl")
    assert (dataset["status"], dataset["report"]["errors"]) == ("processed", [])
    job = post_job(client, dataset=dataset["id"], method={"type": method})
    assert job["recipe"]["method"]["type"] == method


def test_rows_have_what_was_asked_and_said(client: TestClient, path: str) -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    extras = {"tools": tools, "chat_template_kwargs": {"enable_thinking": False}}
    rate(client, path, GOOD, PAIR, {**GOOD, **extras}, {**PAIR, **extras})
    rated = {"messages": [*QUESTION, GOOD["answer"]], "label": True}
    assert rows(client, f"{path}-kto.jsonl") == [rated, {**rated, **extras}]
    pair = {"preferred_output": [GOOD["answer"]], "non_preferred_output": [BAD["answer"]]}
    arguments = {"chat_template_kwargs": extras["chat_template_kwargs"]}
    assert rows(client, f"{path}-dpo.jsonl") == [
        {"input": {"messages": QUESTION}, **pair},
        {"input": {"messages": QUESTION, "tools": tools}, **pair, **arguments},
    ]
    assert upload(client, client.get(f"{path}-dpo.jsonl").content)["report"]["errors"] == []


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"label": None}, "label", "give either label"),
        ({"rejected": BAD["answer"], "rejected_model": "tiny"}, "label", "give either label"),
        ({"label": None, "rejected": BAD["answer"]}, "rejected_model", "together"),
        ({"answer": {"role": "assistant", "content": " "}}, "answer", "no answer"),
        ({"answer": {"role": "user", "content": "Me."}}, "answer", "no answer"),
        ({"messages": [*QUESTION, GOOD["answer"], QUESTION[1]], "answer": QUESTION[1]}, "answer", "no answer"),
        ({"answer": {"role": "assistant", "content": "\0"}}, "answer", "NUL"),
        ({"label": None, "rejected": QUESTION[1], "rejected_model": "tiny"}, "rejected", "no answer"),
        ({"label": None, "rejected": GOOD["answer"], "rejected_model": "tiny"}, "rejected", "same as answer"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs", "set for all rows"),
        ({"messages": [{"role": "nobody", "content": "?"}]}, "answer", "role"),
        ({"messages": []}, "messages", "at least 1"),
        ({"models": "tiny"}, "models", ""),
    ],
)
def test_what_could_not_be_learned_is_refused(
    client: TestClient, path: str, change: dict[str, Any], param: str, said: str
) -> None:
    answer = client.post(path, json={**GOOD, **change})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["param"] == param
    assert said in error["message"]


def test_job_keeps_a_limited_number(client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratings, "MOST", 1)
    rate(client, path, GOOD)
    refused = client.post(path, json=BAD)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "quota_exceeded")


def test_ratings_are_deleted_with_their_job(client: TestClient, path: str) -> None:
    rate(client, path, GOOD)
    job = path.removesuffix("/ratings")
    client.post(f"{job}/cancel").raise_for_status()
    client.delete(job).raise_for_status()
    assert client.get(path).status_code == 404
