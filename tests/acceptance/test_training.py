"""The whole way with the real trainer and a real model: SmolLM2-135M on some rows of the quickstart's data."""

import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
import sqlalchemy as sa

from contract.recipe import Recipe
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from finetuned.stack.models import add_model
from tests.support import service
from tests.support.database import empty_database
from tests.support.service import Service

pytestmark = pytest.mark.slow

MODEL = "smollm2-135m-instruct"
QUICKSTART = Path(__file__).parents[2] / "examples" / "data" / "quickstart.jsonl"
RECIPE = {
    "model": MODEL,
    "dataset": "rows.jsonl",
    "precision": "fp32",
    "adapter": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
    "batch": {"micro_batch_size": 2},
    "schedule": {"max_steps": 6, "warmup_steps": 0},
    "optimizer": {"learning_rate": 1e-3},
    "evaluation": {"fraction": 0.2},
    "checkpointing": {"every_steps": 4},
}


@pytest.fixture(scope="module")
def live(
    tmp_path_factory: pytest.TempPathFactory, engine: sa.Engine, database_url: str, broker_url: str
) -> Iterator[Service]:
    empty_database(engine)
    home = tmp_path_factory.mktemp("home")
    (home / "datasets").mkdir()
    rows = QUICKSTART.read_text().splitlines(keepends=True)[:20]
    (home / "datasets" / "rows.jsonl").write_text("".join(rows))
    add_model(MODEL, home / "models", home / "import.log")
    with service.running(home, database_url, broker_url) as running:
        yield running


@pytest.fixture(scope="module")
def trained(live: Service) -> dict[str, object]:
    job = live.wait(live.submit(**RECIPE)["id"], seconds=240)
    assert job["status"] == "succeeded", job
    return job


def test_evaluation_loss_falls_and_steps_are_unique(live: Service, trained: dict[str, object]) -> None:
    metrics = live.client.get(f"/jobs/{trained['id']}/metrics").json()
    columns = metrics["columns"]
    assert columns["step"] == [1, 2, 3, 4, 5, 6]
    assert all(
        value > 0 for name in ("loss", "grad_norm", "tokens_per_second", "memory_bytes") for value in columns[name]
    )
    assert columns["progress"][-1] == 1
    evaluations = metrics["evaluations"]
    assert evaluations["step"] == [0, 6]
    assert evaluations["eval_loss"][1] < evaluations["eval_loss"][0]


def test_startup_phases_are_reported_with_seconds(live: Service, trained: dict[str, object]) -> None:
    phases = [data["name"] for kind, _, data in live.events(str(trained["id"])) if kind == "phase"]
    assert sorted(phases) == ["data", "first_step", "imports", "model"]


def test_checkpoint_and_the_adapter_can_be_downloaded(live: Service, trained: dict[str, object]) -> None:
    artifacts = live.client.get(f"/jobs/{trained['id']}/artifacts").json()["data"]
    assert [a["name"] for a in artifacts] == [
        "README.md",
        "adapter.tar",
        "checkpoint-4.tar",
        "loss.png",
        "metrics.csv",
        "results.csv",
        "trainer.log",
    ]


def test_adapter_has_the_reported_loss_in_plain_peft(live: Service, trained: dict[str, object], tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from contract.order import split_rows

    archive = live.client.get(f"/jobs/{trained['id']}/artifacts/adapter.tar").content
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(tmp_path, filter="data")
    base = live.home / "models" / MODEL
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "adapter"
    )
    recipe = Recipe.model_validate(trained["recipe"])
    examples = list(read_examples(DatasetFile(path=live.home / "datasets" / "rows.jsonl")))
    _, held_out = split_rows(recipe.seed, len(examples), recipe.evaluation.fraction)
    loss_sum, tokens = 0.0, 0
    for row in held_out:
        *question, answer = examples[row].messages  # type: ignore[union-attr]
        prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
        # ChatML, written by hand: what the assistant says, and the end of its turn.
        target = tokenizer(answer["content"] + "<|im_end|>", add_special_tokens=False)["input_ids"]
        labels = torch.tensor([[-100] * len(prompt) + target])
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([prompt + target]), labels=labels).loss.item()
        loss_sum, tokens = loss_sum + loss * len(target), tokens + len(target)
    reported = trained["progress"]["eval_loss"]  # type: ignore[index]
    assert loss_sum / tokens == pytest.approx(reported, rel=1e-5)


@pytest.mark.exhaustive
def test_two_processes_train_as_one_does(live: Service, trained: dict[str, object]) -> None:
    """An example on each of two ranks are the two of one."""
    batch, resources = {"micro_batch_size": 1}, {"gpus": 2}
    job = live.wait(live.submit(**RECIPE | {"batch": batch, "resources": resources})["id"], seconds=280)
    assert job["status"] == "succeeded", job
    mine, others = (live.client.get(f"/jobs/{each['id']}/metrics").json() for each in (job, trained))
    assert mine["columns"]["loss"] == pytest.approx(others["columns"]["loss"], rel=1e-3)
    assert mine["evaluations"]["eval_loss"] == pytest.approx(others["evaluations"]["eval_loss"], rel=1e-3)


@pytest.mark.exhaustive
def test_stopped_worker_requeues_and_the_job_resumes(live: Service, trained: dict[str, object]) -> None:
    job_id = live.submit(**RECIPE)["id"]
    live.wait_for_step(job_id, 1, seconds=120)
    live.stop_worker()
    assert live.job(job_id)["status"] == "queued"
    assert live.processes(job_id) == []
    artifacts = live.client.get(f"/jobs/{job_id}/artifacts").json()["data"]
    assert [a["kind"] for a in artifacts] == ["checkpoint", "log"]
    live.start_worker()
    assert live.wait(job_id, seconds=240)["status"] == "succeeded"
    starts = [data["resumed_step"] for kind, _, data in live.events(job_id) if kind == "started"]
    assert starts[0] == 0
    assert starts[1] > 0
    losses = [live.client.get(f"/jobs/{each}/metrics").json()["columns"]["loss"] for each in (job_id, trained["id"])]
    assert losses[0] == losses[1]


def test_unmatched_target_modules_are_refused_with_advice(live: Service) -> None:
    recipe = {**RECIPE, "adapter": {"target_modules": ["query_key_value"]}}
    answer = live.client.post("/jobs", content=json.dumps(recipe))
    assert answer.status_code == 422
    assert "q_proj" in answer.json()["error"]["message"]
