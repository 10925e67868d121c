"""A recipe that starts from an earlier job's adapter is checked when it is posted."""

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contract.events import CheckpointEvent
from store import artifacts
from store.jobs import jobs
from store.session import Sessions
from tests.support.api import error_of, post_job, submit
from tests.support.artifacts import publish_rows
from tests.support.jobs import make_recipe


@pytest.fixture
def earlier(home: Path, sessions: Sessions) -> str:
    """A job with an adapter that fits the model "tiny", and a checkpoint whose files have gone."""
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        for step, path, final in ((5, "checkpoints/step-000005", False), (9, "adapter", True)):
            event = CheckpointEvent(time=1, step=step, path=path, bytes=2, final=final)
            artifacts.add_checkpoint(session, job_id, 1, event)
    publish_rows(sessions)
    write_adapter(adapter_folder(home, job_id), size=2)
    return job_id


def adapter_folder(home: Path, job_id: str) -> Path:
    return home / "runs" / artifacts.run_path(job_id, 1) / "adapter"


def write_adapter(folder: Path, size: int) -> None:
    """The headers of a LoRA of rank 1 for a matrix of `size` x `size`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora"
    tensors = {
        f"{name}_A.weight": {"dtype": "F32", "shape": [1, size], "data_offsets": [0, 4 * size]},
        f"{name}_B.weight": {"dtype": "F32", "shape": [size, 1], "data_offsets": [4 * size, 8 * size]},
    }
    header = json.dumps(tensors).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(8 * size)
    (folder / "adapter_model.safetensors").write_bytes(content)


def test_fitting_adapter_is_accepted_by_name(client: TestClient, earlier: str) -> None:
    job = post_job(client, adapter={"start_from": earlier})
    assert job["recipe"]["adapter"]["start_from"] == earlier


@pytest.mark.parametrize(
    ("start_from", "problem"),
    [
        ("/etc", "give the id of a job"),
        ("../../etc", "give the id of a job"),
        ("{job}/best", "give the id of a job"),
        ("{job}/trainer.log", "give the id of a job"),
        ("job_000000000000000000000000", "no job job_000000000000000000000000"),
        ("{job}/checkpoint-6", "no artifact checkpoint-6.tar"),
        ("{job}/checkpoint-5", "no longer on the server"),
    ],
)
def test_invalid_start_from_is_refused_by_field(
    client: TestClient, earlier: str, start_from: str, problem: str
) -> None:
    answer = submit(client, adapter={"start_from": start_from.format(job=earlier)})
    error = error_of(answer, 422, "recipe_invalid")
    assert error["param"] == "adapter.start_from"
    assert problem in error["message"]


def test_adapter_of_another_model_is_refused(client: TestClient, home: Path, earlier: str) -> None:
    write_adapter(adapter_folder(home, earlier), size=3)
    error = submit(client, adapter={"start_from": earlier}).json()["error"]
    assert error["param"] == "adapter.start_from"
    assert "does not fit tiny" in error["message"]
