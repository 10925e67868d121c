import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from contract.events import CheckpointEvent
from contract.export import GGUF_FORMATS
from store import artifacts
from store.jobs import jobs
from store.session import Sessions
from tests.support.artifacts import publish, publish_rows
from tests.support.files import write_model
from tests.support.jobs import make_recipe


@pytest.fixture
def job_id(home: Path, sessions: Sessions) -> str:
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        for step, final, loss in ((2, False, 1.5), (5, True, None)):
            event = CheckpointEvent(time=1, step=step, path=f"step-{step}", bytes=2, final=final, eval_loss=loss)
            artifacts.add_checkpoint(session, job_id, 1, event)
    publish_rows(sessions)
    return job_id


def test_export_waits_and_is_told_of(client: TestClient, job_id: str) -> None:
    answer = client.post(f"/jobs/{job_id}/exports", json={"format": "merged"})
    assert answer.status_code == 202
    made = answer.json()
    assert (made["status"], made["source"], made["artifact"]) == ("queued", "adapter.tar", None)
    assert client.get(f"/jobs/{job_id}/exports/{made['id']}").json() == made
    assert client.get(f"/jobs/{job_id}/exports").json() == {"data": [made], "has_more": False}
    assert client.post(f"/jobs/{job_id}/exports", json={"format": "merged"}).json() == made


def test_best_is_what_it_stands_for(client: TestClient, job_id: str) -> None:
    best = client.post(f"/jobs/{job_id}/exports", json={"format": "merged", "source": "best.tar"}).json()
    assert best["source"] == "checkpoint-2.tar"
    same = client.post(f"/jobs/{job_id}/exports", json={"format": "merged", "source": "checkpoint-2.tar"}).json()
    assert same["id"] == best["id"]


def test_each_shard_size_is_an_export_of_its_own(client: TestClient, job_id: str) -> None:
    url = f"/jobs/{job_id}/exports"
    small = client.post(url, json={"shard_size": "500MB"}).json()
    assert (small["format"], small["shard_size"]) == ("merged", "500MB")
    assert client.post(url, json={"shard_size": "500MB"}).json()["id"] == small["id"]
    assert len({client.post(url, json={"shard_size": each}).json()["id"] for each in ("500MB", "2GB", None)}) == 3


@pytest.mark.parametrize(
    ("requested", "status", "reported"),
    [
        ({"format": "onnx"}, 422, "format"),
        ({"format": "portable", "source": "checkpoint-3.tar"}, 404, None),
        ({"format": "portable", "shard_size": "2GB"}, 422, "shard_size"),
        ({"format": "merged-gguf-f16", "shard_size": "2GB"}, 422, "shard_size"),
        ({"format": "merged-gguf-q4", "shard_size": None}, 422, "format"),
        ({"format": "merged", "shard_size": "2 GB"}, 422, "shard_size"),
        ({"format": "merged", "shard_size": "0MB"}, 422, "shard_size"),
        ({"format": "merged", "source": "../x"}, 422, "source"),
        ({"format": "merged", "source": "trainer.log"}, 422, "source"),
        ({"format": "merged", "into": "x"}, 422, "into"),
        ({"format": "merged", "source": "checkpoint-3.tar"}, 404, None),
        ({"format": "merged", "source": "merged.tar"}, 404, None),
    ],
)
def test_impossible_export_is_refused(
    client: TestClient, job_id: str, requested: dict[str, str], status: int, reported: str | None
) -> None:
    answer = client.post(f"/jobs/{job_id}/exports", json=requested)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, reported)


@pytest.mark.parametrize("export", ["exp_" + "0" * 24, "no", "%00"])
def test_unknown_export_is_404(client: TestClient, job_id: str, export: str) -> None:
    assert client.get(f"/jobs/{job_id}/exports/{export}").status_code == 404
    assert client.get(f"/jobs/{job_id}/exports?after={export}").status_code == 404


PLAIN = {"r": 16, "lora_alpha": 32, "use_rslora": True, "rank_pattern": {"q_proj": 32}, "alpha_pattern": {"q_proj": 8}}


def saved(sessions: Sessions, home: Path, config: dict[str, Any], **recipe: Any) -> str:
    """The id of a job whose adapter has this configuration."""
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe(**recipe)).id
        artifacts.add_checkpoint(session, job_id, 1, CheckpointEvent(time=1, step=5, path="a", bytes=2, final=True))
    folder = home / "runs" / artifacts.run_path(job_id, 1) / "a"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    publish(sessions, home)
    return job_id


@pytest.mark.parametrize("wanted", ["portable", *GGUF_FORMATS])
def test_adapter_in_other_formats_is_accepted(client: TestClient, sessions: Sessions, home: Path, wanted: str) -> None:
    job_id = saved(sessions, home, PLAIN)
    answer = client.post(f"/jobs/{job_id}/exports", json={"format": wanted})
    assert answer.status_code == 202, answer.text
    assert (answer.json()["format"], answer.json()["source"]) == (wanted, "adapter.tar")
    merged = client.post(f"/jobs/{job_id}/exports", json={"format": "merged"}).json()
    assert merged["id"] != answer.json()["id"]


@pytest.mark.parametrize("wanted", ["portable", "gguf"])
@pytest.mark.parametrize(
    ("config", "adapter", "reason"),
    [
        ({"use_dora": True}, {}, "adapter.dora"),
        ({"bias": "all"}, {}, "adapter.bias"),
        ({"modules_to_save": ["lm_head"]}, {}, "adapter.modules_to_save"),
        ({"target_parameters": ["experts.down_proj"]}, {}, "adapter.experts"),
        ({"rank_pattern": {"q_proj": 513}}, {}, "a rank of 513 is above 512"),
        ({}, {"init": "loftq"}, "adapter.init"),
    ],
)
def test_adapter_that_engines_do_not_load_is_refused(
    client: TestClient,
    sessions: Sessions,
    home: Path,
    wanted: str,
    config: dict[str, Any],
    adapter: dict[str, Any],
    reason: str,
) -> None:
    bits = {"base_bits": 4} if adapter else {}
    job_id = saved(sessions, home, PLAIN | config, adapter=adapter, **bits)
    continued = saved(sessions, home, PLAIN | config, adapter={"start_from": job_id}, **bits)
    for each in (job_id, continued):
        answer = client.post(f"/jobs/{each}/exports", json={"format": wanted})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (422, "format")
        assert reason in error["message"]
        assert error["message"].endswith('export it with format "merged"')
        assert client.get(f"/jobs/{each}/exports").json()["data"] == []


@pytest.mark.parametrize("wanted", GGUF_FORMATS)
def test_gguf_of_an_unknown_architecture_is_refused(
    client: TestClient, sessions: Sessions, home: Path, wanted: str
) -> None:
    write_model(home / "models" / "other")
    (home / "models" / "other" / "config.json").write_text('{"model_type": "bloom"}')
    job_id = saved(sessions, home, PLAIN, model="other")
    answer = client.post(f"/jobs/{job_id}/exports", json={"format": wanted})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "format")
    assert '"bloom" is not one of gemma, gemma2' in answer.json()["error"]["message"]
    assert client.post(f"/jobs/{job_id}/exports", json={"format": "portable"}).status_code == 202


def test_dora_has_a_merged_gguf(client: TestClient, sessions: Sessions, home: Path) -> None:
    job_id = saved(sessions, home, PLAIN | {"use_dora": True})
    answer = client.post(f"/jobs/{job_id}/exports", json={"format": "merged-gguf-q8_0"})
    assert answer.status_code == 202, answer.text
