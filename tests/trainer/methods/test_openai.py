"""DPO by OpenAI's SDK, as it is, on a service with the real trainer."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from tests.support.service import Service
from tests.support.waiting import until

pytestmark = pytest.mark.exhaustive

PAIRS = [
    {
        "input": {"messages": [{"role": "user", "content": f"What is {n} plus {n}?"}]},
        "preferred_output": [{"role": "assistant", "content": f"{2 * n}."}],
        "non_preferred_output": [{"role": "assistant", "content": f"I would say that this is {2 * n}, my friend."}],
    }
    for n in range(16)
]


@pytest.fixture(scope="module")
def live(serve_tiny: Callable[..., AbstractContextManager[Service]]) -> Iterator[Service]:
    with serve_tiny(OMP_NUM_THREADS="1") as running:
        yield running


@pytest.fixture
def client(live: Service) -> Iterator[openai.OpenAI]:
    key = live.client.post("/keys", json={"owner": "anna"}).json()["secret"]
    with openai.OpenAI(base_url=f"{live.client.base_url}/v1", api_key=key, max_retries=2) as client:
        yield client


def upload(client: openai.OpenAI, rows: list[Any]) -> str:
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return client.files.create(file=("pairs.jsonl", content), purpose="fine-tune").id


def ended(client: openai.OpenAI, job_id: str) -> FineTuningJob:
    def look() -> FineTuningJob | None:
        job = client.fine_tuning.jobs.retrieve(job_id)
        return job if job.status in ("succeeded", "failed", "cancelled") else None

    return until(look, seconds=120)


def metrics_of(client: openai.OpenAI, job_id: str) -> list[Any]:
    """Newest first."""
    return [event.data for event in client.fine_tuning.jobs.list_events(job_id, limit=100) if event.type == "metrics"]


def test_small_model_learns_to_prefer_short_answers(client: openai.OpenAI) -> None:
    hyperparameters: Any = {"n_epochs": 4, "batch_size": 4, "beta": 0.2, "learning_rate_multiplier": 600}
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=upload(client, PAIRS[:12]),
        validation_file=upload(client, PAIRS[12:]),
        method={"type": "dpo", "dpo": {"hyperparameters": hyperparameters}},
    )
    done = ended(client, job.id)
    assert done.status == "succeeded", done.error
    assert done.method is not None
    assert done.method.type == "dpo"
    assert done.method.dpo is not None
    assert done.method.dpo.hyperparameters is not None
    assert (done.method.dpo.hyperparameters.beta, done.method.dpo.hyperparameters.n_epochs) == (0.2, 4)

    data = metrics_of(client, job.id)[::-1]
    losses = [each["train_loss"] for each in data if "train_loss" in each]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[-1] < 0.5
    held_out = [each for each in data if "full_valid_loss" in each]
    assert held_out[-1]["full_valid_reward_accuracy"] == 1
    assert held_out[-1]["full_valid_reward_margin"] > held_out[0]["full_valid_reward_margin"]
    assert held_out[-1]["full_valid_chosen_tokens"] < held_out[-1]["full_valid_rejected_tokens"]

    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [12, 9, 6]
    metrics = checkpoints[0].metrics.model_extra or {}
    assert metrics["full_valid_reward_accuracy"] == 1
    rows = list(csv.DictReader(client.files.content(done.result_files[0]).read().decode().splitlines()))
    assert float(rows[-1]["reward_margin"]) > float(rows[0]["reward_margin"])

    further = client.fine_tuning.jobs.create(
        model=done.fine_tuned_model or "",
        training_file=upload(client, PAIRS[:12]),
        method={"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1}}},
    )
    assert ended(client, further.id).status == "succeeded"
    *_, first = metrics_of(client, further.id)
    assert first["train_loss"] == pytest.approx(0.693147, abs=1e-5)


def test_supervised_job_has_token_accuracies(client: openai.OpenAI) -> None:
    rows = [
        {"messages": [*pair["input"]["messages"], *pair["preferred_output"]]}  # type: ignore[index]
        for pair in PAIRS
    ]
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=upload(client, rows[:12]),
        validation_file=upload(client, rows[12:]),
        hyperparameters={"n_epochs": 3, "batch_size": 4, "learning_rate_multiplier": 50},
    )
    assert ended(client, job.id).status == "succeeded"
    newest, *_, oldest = client.fine_tuning.jobs.checkpoints.list(job.id)
    for checkpoint in (newest, oldest):
        metrics = checkpoint.metrics
        assert metrics.full_valid_loss == metrics.valid_loss is not None
        assert 0 <= (metrics.full_valid_mean_token_accuracy or 0) == metrics.valid_mean_token_accuracy
        assert metrics.train_mean_token_accuracy is not None
    assert (newest.metrics.train_mean_token_accuracy or 0) > (oldest.metrics.train_mean_token_accuracy or 1)
