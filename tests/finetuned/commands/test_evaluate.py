import json
from pathlib import Path
from typing import Any

from finetuned import Client
from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi

PATH = "/jobs/job_1/evaluations"
SCORES = {"loss": 1.25, "perplexity": 3.49, "exact_match": 0.5, "token_f1": 0.75, "rouge_l": 0.7}
ANSWER = {"answer": "Four.", "finish": "stop", "loss": 1.0, "exact_match": 0.0, "token_f1": 1.0, "rouge_l": 1.0}


def evaluation(status: str, **fields: Any) -> dict[str, Any]:
    dataset = {"path": "rows.jsonl", "sha256": "0" * 64}
    return {"id": "eval_1", "job_id": "job_1", "status": status, "dataset": dataset, "examples": 2, **fields}


def prepare(api: FakeApi, **ended: Any) -> None:
    base, adapter = {**SCORES, "perplexity": None}, {**SCORES, "loss": 0.5}
    scores = {"examples": 2, "supervised_tokens": 9, "base": base, "adapter": adapter}
    api.answers[f"POST {PATH}"] = (202, evaluation("queued"))
    given = {"status": "succeeded", "scores": scores, "dropped": 1, "artifact": "eval_1.jsonl", "done": 2} | ended
    api.answers[f"GET {PATH}/eval_1"] = (200, evaluation("") | given)
    answers = {"base": {**ANSWER, "answer": "[b]\x1b[31m"}, "adapter": ANSWER}
    row = {"number": 1, "prompt": "What is 2 plus 2?", "reference": "4.", **answers}
    api.answers[f"GET {PATH}/eval_1/rows"] = (200, {"data": [row], "has_more": False})


def test_base_and_adapter_are_printed_side_by_side(api: FakeApi) -> None:
    prepare(api)
    done = finetuned("evaluate", "job_1", "--dataset", "rows.jsonl", "--checkpoint", "4", "--url", api.url)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[:3] == [["base", "adapter"], ["loss", "1.25", "0.5"], ["perplexity", "3.49"]]
    assert done.stdout.splitlines()[-4:] == [
        "example 1: What is 2 plus 2?",
        "reference: 4.",
        "base: [b]\\u001b[31m",
        "adapter: Four.",
    ]
    assert "2 examples; 1 were too long to evaluate; all answers: eval_1.jsonl" in done.stderr
    assert json.loads(api.bodies[0]) == {
        "dataset": "rows.jsonl",
        "limit": 200,
        "max_new_tokens": 256,
        "checkpoint": 4,
    }


def test_file_of_this_machine_is_uploaded(api: FakeApi, tmp_path: Path) -> None:
    prepare(api)
    (tmp_path / "here.jsonl").write_text("{}")
    api.answers["POST /datasets"] = (201, {"id": "file-1", "status": "processed"})
    done = finetuned("evaluate", "job_1", "--dataset", str(tmp_path / "here.jsonl"), "--json", "--url", api.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["artifact"] == "eval_1.jsonl"
    assert json.loads(api.bodies[1])["dataset"] == "file-1"


def test_failed_evaluation_says_why(api: FakeApi) -> None:
    failure = {"code": "dataset_changed", "message": "dataset: rows.jsonl has changed", "param": "dataset"}
    prepare(api, status="failed", scores=None, failure=failure)
    done = finetuned("evaluate", "job_1", "--dataset", "rows.jsonl", "--url", api.url)
    assert (done.returncode, "rows.jsonl has changed" in done.stderr) == (1, True)


def test_client_reads_lists_and_deletes(api: FakeApi) -> None:
    prepare(api)
    one = evaluation("queued")
    api.answers[f"GET {PATH}"] = api.answers["GET /evaluations"] = (200, {"data": [one], "has_more": False})
    api.answers[f"DELETE {PATH}/eval_1"] = (204, b"")
    with Client(api.url) as client:
        (of_job,) = client.evaluations.of("job_1")
        (listed,) = client.evaluations.list(dataset_sha256="0" * 64)
        assert of_job == listed
        found = client.evaluations.get("job_1", "eval_1")
        assert found.scores
        assert (found.scores.adapter.loss, found.ended) == (0.5, True)
        found.delete()
