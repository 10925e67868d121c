"""The examples that a job does not learn from, as questions with their own answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from contract.events import StartedEvent
from contract.order import split_rows
from store.session import Sessions
from tests.sentences import is_sentence
from tests.support.api import post_job, upload
from tests.support.jobs import claim, record_events

CHAT = [
    {
        "messages": [
            {"role": "system", "content": "Count."},
            {"role": "user", "content": f"Number {n}?"},
            {"role": "assistant", "content": f"It is {n}."},
            {"role": "user", "content": "And the next?"},
            {"role": "assistant", "content": f"It is {n + 1}."},
        ]
    }
    for n in range(10)
]
PAIRS = [{"prompt": f"Number {n}?", "chosen": "Yes.", "rejected": "No."} for n in range(10)]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def begin(client: TestClient, sessions: Sessions, train: int, held: int, dropped: int = 0, **recipe: Any) -> str:
    """The address of a job that has read its examples."""
    job_id = post_job(client, **recipe)["id"]
    with sessions.begin() as session:
        claimed = claim(session)
        assert claimed is not None
        assert claimed.id == job_id
    started = StartedEvent(
        time=1,
        total_steps=2,
        train_examples=train,
        eval_examples=held,
        supervised_tokens=10,
        truncated_examples=0,
        dropped_examples=dropped,
        trainable_parameters=8,
        total_parameters=16,
        world_size=1,
        device="CPU",
        precision="fp32",
        versions={},
    )
    record_events(sessions, job_id, started)
    return f"/jobs/{job_id}/held-out"


def test_each_held_out_example_is_one_that_training_leaves_out(client: TestClient, sessions: Sessions) -> None:
    dataset = upload(client, lines(CHAT))["id"]
    # The trainer counts documents, and has made two of each conversation.
    path = begin(client, sessions, 14, 6, dataset=dataset, seed=4, evaluation={"fraction": 0.3})
    _, held_out = split_rows(4, 10, 0.3)
    for index, row in enumerate(held_out):
        found = client.get(path, params={"index": index}).json()
        assert (found["count"], found["reason"]) == (3, None)
        assert found["example"]["messages"] == CHAT[row]["messages"][:-1]
        assert found["example"]["reference"] == CHAT[row]["messages"][-1]
    beyond = client.get(path, params={"index": 3}).json()
    assert (beyond["count"], beyond["example"], beyond["reason"]) == (3, None, "The last one has the index 2.")


def test_example_of_a_dataset_of_its_own_is_the_better_answer(client: TestClient, sessions: Sessions) -> None:
    train, held = (
        upload(client, lines(rows), f"{name}.jsonl")["id"] for name, rows in (("a", PAIRS), ("b", PAIRS[5:]))
    )
    recipe = {"dataset": train, "evaluation": {"dataset": held}, "method": {"type": "dpo"}}
    path = begin(client, sessions, 9, 4, 2, **recipe)
    found = client.get(path, params={"index": 1}).json()
    assert found["example"]["messages"] == [{"role": "user", "content": "Number 6?"}]
    assert found["example"]["reference"]["content"] == "Yes."


@pytest.mark.parametrize(
    ("evaluation", "dropped", "reason"),
    [({}, 0, "holds no example out"), ({"fraction": 0.3}, 2, "too long to learn from (2)")],
)
def test_job_says_why_it_shows_no_example(
    client: TestClient, sessions: Sessions, evaluation: dict[str, Any], dropped: int, reason: str
) -> None:
    dataset = upload(client, lines(CHAT))["id"]
    path = begin(client, sessions, 6, 2, dropped, dataset=dataset, evaluation=evaluation)
    found = client.get(path).json()
    assert (found["count"], found["example"]) == (0, None)
    assert reason in found["reason"]
    assert is_sentence(found["reason"])


def test_plain_text_is_no_question(client: TestClient, sessions: Sessions) -> None:
    dataset = upload(client, b"".join(b'{"text": "Once upon a time."}\n' for _ in range(4)))["id"]
    path = begin(client, sessions, 2, 2, dataset=dataset, evaluation={"fraction": 0.5})
    found = client.get(path).json()
    assert (found["count"], found["example"]) == (2, None)
    assert "plain text" in found["reason"]
    assert is_sentence(found["reason"])


def test_changed_file_is_not_read_as_the_jobs_own(client: TestClient, sessions: Sessions, home: Path) -> None:
    (home / "datasets" / "rows.jsonl").write_bytes(lines(CHAT))
    path = begin(client, sessions, 7, 3, evaluation={"fraction": 0.3})
    assert client.get(path).json()["example"] is not None
    (home / "datasets" / "rows.jsonl").write_bytes(lines(CHAT[1:]))
    assert client.get(path).json()["error"]["code"] == "dataset_changed"
