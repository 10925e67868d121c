"""Exports of what is deleted meanwhile."""

import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from contract.events import CheckpointEvent
from contract.export import ExportFormat
from contract.status import JobStatus
from storage.backends import FolderStorage
from store import artifacts, exports
from store.artifacts import Digests
from store.exports import Wanted
from store.jobs import attempts, deletion, jobs
from store.jobs.attempts import AttemptEnd
from store.models import Deletion, Export
from store.session import Sessions
from tests.support import fake_merger
from tests.support.artifacts import publish
from tests.support.files import write_model
from tests.support.jobs import LEASE, RETRIES, claim, make_recipe, record_events
from tests.support.waiting import until
from tests.worker.publishing.ended_jobs import published, run_job
from worker.publishing.exporter import Exporter
from worker.settings import WorkerSettings


@pytest.fixture
def exporter(sessions: Sessions, tmp_path: Path, database_url: str, broker_url: str) -> Exporter:
    """Its process never ends by itself."""
    write_model(tmp_path / "models" / "tiny")
    settings = WorkerSettings(
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        home=tmp_path,
        worker="worker",
        exporter=["sleep", "1000"],
    )
    return Exporter(sessions, settings, FolderStorage(tmp_path), lambda: False)


@pytest.fixture
def job_id(sessions: Sessions, tmp_path: Path) -> str:
    """A job that has succeeded, and of which an export is requested."""
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        assert claim(session) is not None
    adapter = tmp_path / "runs" / artifacts.run_path(job_id, 1) / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    record_events(sessions, job_id, CheckpointEvent(time=1, step=1, path="adapter", bytes=2, final=True))
    publish(sessions, tmp_path)
    with sessions.begin() as session:
        attempts.finish(session, job_id, 1, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
        exports.request(session, job_id, Wanted("merged"), None)
    return job_id


def delete_model(sessions: Sessions, job_id: str) -> None:
    with sessions.begin() as session:
        assert deletion.delete_model(session, jobs.lock(session, job_id))


def check_model_stays_deleted(sessions: Sessions, job_id: str) -> Export:
    with sessions.begin() as session:
        assert artifacts.list_weights(session, job_id) == []
        (export,) = session.scalars(sa.select(Export))
        session.expunge(export)
    assert export.status == "failed"
    assert export.failure is not None
    assert export.failure["message"] == f"the model of job {job_id} was deleted"
    return export


def test_export_of_a_deleted_model_fails_and_says_so(sessions: Sessions, exporter: Exporter, job_id: str) -> None:
    delete_model(sessions, job_id)
    assert exporter.export_next() is None
    check_model_stays_deleted(sessions, job_id)


def test_finished_export_brings_no_deleted_model_back(sessions: Sessions, job_id: str) -> None:
    with sessions.begin() as session:
        export = exports.claim(session, "worker", LEASE)
        assert export is not None
        session.expunge(export)
    delete_model(sessions, job_id)
    with sessions.begin() as session:
        made = exports.artifact(export)
        assert not exports.succeed(session, export.id, export.attempt, made, Digests([], 1, "0" * 64))
    check_model_stays_deleted(sessions, job_id)
    with sessions.begin() as session:
        assert str(exports.folder(export)) in session.scalars(sa.select(Deletion.path)).all()


def test_merger_of_a_deleted_model_is_ended(
    sessions: Sessions, exporter: Exporter, job_id: str, tmp_path: Path
) -> None:
    thread = threading.Thread(target=exporter.export_next)
    thread.start()
    until(lambda: list((tmp_path / "runs" / job_id / "exports").glob("*/trainer.log")))
    delete_model(sessions, job_id)
    thread.join(30)
    assert not thread.is_alive()
    check_model_stays_deleted(sessions, job_id)


def test_merger_of_a_deleted_job_is_ended(sessions: Sessions, exporter: Exporter, job_id: str, tmp_path: Path) -> None:
    thread = threading.Thread(target=exporter.export_next)
    thread.start()
    until(lambda: list((tmp_path / "runs" / job_id / "exports").glob("*/trainer.log")))
    with sessions.begin() as session:
        deletion.delete_job(session, job_id)
    thread.join(30)
    assert not thread.is_alive()
    with sessions.begin() as session:
        assert session.scalars(sa.select(Export)).all() == []
        assert session.scalars(sa.select(Deletion.path)).all() == [job_id]


FOLDERS = (".exported.partial", "adapter", "exported")
"""The large ones of an attempt."""


@pytest.mark.parametrize("end", ["exec sleep 1000", "exit 1"])
def test_stopped_or_failed_export_leaves_only_its_log(
    sessions: Sessions, exporter: Exporter, job_id: str, end: str
) -> None:
    script = f'cd "$0"; mkdir -p {" ".join(FOLDERS)}; touch adapter/weights exported/weights begun; {end}'
    settings = exporter.settings.model_copy(update={"exporter": ["sh", "-c", script]})
    attempts_of_job = settings.runs / job_id / "exports"
    begun = replace(exporter, settings=settings, stopping=lambda: any(attempts_of_job.glob("*/begun")))
    assert begun.export_next() is not None
    (attempt,) = attempts_of_job.iterdir()
    left = {path.name for path in attempt.iterdir()}
    assert "trainer.log" in left
    assert left.isdisjoint(FOLDERS)
    with sessions.begin() as session:
        status, deleted = session.scalar(sa.select(Export.status)), session.scalars(sa.select(Deletion.path)).all()
    uploaded = str(Path(job_id, "exports", attempt.name, "exported"))
    assert (status, [*deleted]) in (("queued", []), ("failed", [uploaded]))


def test_next_attempt_deletes_the_files_of_a_lost_one(sessions: Sessions, job_id: str) -> None:
    with sessions.begin() as session:
        lost = exports.claim(session, "worker", timedelta(seconds=-1))
        assert lost is not None
        folder = exports.folder(lost)
    with sessions.begin() as session:
        again = exports.claim(session, "worker", LEASE)
        assert again is not None
        assert again.attempt == 2
        assert {*session.scalars(sa.select(Deletion.path))} == {str(folder / name) for name in FOLDERS}


def test_success_whose_commit_was_in_doubt_stays(sessions: Sessions, job_id: str) -> None:
    with sessions.begin() as session:
        export = exports.claim(session, "worker", LEASE)
        assert export is not None
        session.expunge(export)
    made, digests = exports.artifact(export), Digests([], 1, "0" * 64)
    for attempt, succeeds in ((1, True), (1, True), (2, False)):
        with sessions.begin() as session:
            assert exports.succeed(session, export.id, attempt, made, digests) is succeeds


COMMANDS = {
    "portable": (
        "vllm serve tiny --enable-lora --max-lora-rank 64 --lora-modules tuned=./portable",
        "sglang.launch_server --model-path tiny --enable-lora --lora-paths tuned=./portable",
        'PeftModel.from_pretrained(base, "portable")',
    ),
    "gguf": (
        "llama-server --model gguf/base.gguf --lora gguf/adapter.gguf",
        "ollama create tuned --file gguf/Modelfile",
    ),
    "merged": (
        'AutoModelForCausalLM.from_pretrained("merged")',
        "vllm serve ./merged",
        "sglang.launch_server --model-path ./merged",
        "format `merged-gguf-q8_0`",
        "convert_hf_to_gguf.py --outtype q8_0 --outfile merged.gguf ./merged",
    ),
    **{
        form: (
            f"llama-server --model {form}/model.gguf",
            f"ollama create tuned --file {form}/Modelfile",
            f"lms import {form}/model.gguf",
        )
        for form in ("merged-gguf-f16", "merged-gguf-q8_0")
    },
}


@pytest.mark.parametrize("wanted", get_args(ExportFormat))
def test_card_of_an_export_names_the_commands(sessions: Sessions, exporter: Exporter, wanted: ExportFormat) -> None:
    command = [sys.executable, "-P", str(fake_merger.__file__)]
    settings = exporter.settings.model_copy(update={"exporter": command})
    job_id = run_job(sessions, settings)
    publish(sessions, settings.home)
    with sessions.begin() as session:
        exports.request(session, job_id, Wanted(wanted), None)
    assert replace(exporter, settings=settings).export_next() is not None
    made = published(sessions, job_id)[f"{wanted}.tar"]
    assert made.kind == wanted
    assert {"README.md", "loss.png"} < {file.name for file in artifacts.files(made)}
    card = (settings.runs / made.path / "README.md").read_text()
    for said in (*COMMANDS[wanted], "ab" * 32, "1.2500, after step 2", '"learning_rate"'):
        assert said in card
    assert "base_model" not in card  # hubs refuse one that is no repo
