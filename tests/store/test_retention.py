"""What was kept for as long as the settings say is deleted, and nothing else."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr, ValidationError

from contract.failure import Failure, FailureCode
from contract.status import JobStatus
from runtime.settings import StoreSettings
from storage.backends import FolderStorage
from store import artifacts, datasets, deletions, exports
from store.access import quotas
from store.datasets import Source
from store.exports import Wanted
from store.jobs import actions, attempts, jobs
from store.jobs.attempts import AttemptEnd
from store.models import Artifact, Deletion, Export, Job
from store.retention import Kind, Retention
from store.session import Sessions
from tests.support.artifacts import publish
from tests.support.jobs import RETRIES, claim, make_recipe

FAILED = AttemptEnd(JobStatus.FAILED, Failure(code=FailureCode.LOSS_NOT_FINITE, message="the loss is nan"))

CHECKPOINT = "attempt-1/checkpoints/step-000002/weights"
KEPT = {CHECKPOINT, "attempt-2/adapter/weights", "attempt-2/trainer.log", "attempt-2/recipe.json"}
LEFT = {"attempt-1/recipe.json", "attempt-1/trainer.log", "attempt-1/checkpoints/.step-000004.partial/weights"}
STATES = {"attempt-1/states/step-000002/state", "attempt-2/states/step-000009/state"}
EXPORTED = {"exports/exp_1-1/merged/model", "exports/exp_1-1/log"}


class Bucket(FolderStorage):
    """Stands in a folder, and like a bucket it is not the home."""

    remote = True


def settings(home: Path, **kept: Any) -> StoreSettings:
    return StoreSettings(database_url=SecretStr("x"), broker_url=SecretStr("x"), home=home, **kept)


def retention(sessions: Sessions, home: Path, storage: FolderStorage | None = None, **kept: Any) -> Retention:
    return Retention(sessions, settings(home, **kept), storage or FolderStorage(home))


def write(folder: Path, paths: set[str]) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("12345")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def end(sessions: Sessions, end: AttemptEnd = FAILED) -> str:
    """A job whose first attempt was lost and whose second one has ended so."""
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe(), "anna").id
        for each in (AttemptEnd(JobStatus.QUEUED), end):
            job = claim(session)
            assert job is not None
            attempts.finish(session, job_id, job.attempt, each, RETRIES)
    return job_id


def add_artifacts(sessions: Sessions, home: Path, job_id: str, storage: FolderStorage | None = None) -> None:
    named = {
        "checkpoint-2.tar": ("checkpoint", "attempt-1/checkpoints/step-000002"),
        "adapter.tar": ("adapter", "attempt-2/adapter"),
        "trainer.log": ("log", "attempt-2/trainer.log"),
    }
    with sessions.begin() as session:
        for name, (kind, path) in named.items():
            artifacts.add(session, Artifact(job_id=job_id, name=name, kind=kind, path=f"{job_id}/{path}", bytes=5))
    publish(sessions, home, storage)


@pytest.fixture
def job_id(sessions: Sessions, tmp_path: Path) -> str:
    """A job that has failed, with files of every kind."""
    job_id = end(sessions)
    write(tmp_path / "runs" / job_id, KEPT | LEFT | STATES)
    add_artifacts(sessions, tmp_path, job_id)
    return job_id


def age(sessions: Sessions, **by: float) -> None:
    """Moves the ends of all jobs into the past."""
    with sessions.begin() as session:
        session.execute(sa.update(Job).values(finished_at=Job.finished_at - timedelta(**by)))


@pytest.mark.parametrize(
    ("days", "kept", "gone"),
    [
        (6, {}, set()),
        (8, {}, LEFT),
        (31, {}, LEFT | STATES),
        (31, {"keep_run_folders": None}, STATES),
        (31, {"keep_training_checkpoints": None}, LEFT),
        (31, {"keep_run_folders": None, "keep_training_checkpoints": None}, set()),
        (1, {"keep_training_checkpoints": timedelta(hours=1)}, STATES),
        (0, {"keep_run_folders": timedelta(0), "keep_training_checkpoints": timedelta(0)}, set()),
    ],
)
def test_run_folders_are_cleaned_as_the_settings_say(
    sessions: Sessions, tmp_path: Path, job_id: str, days: float, kept: Mapping[str, Any], gone: set[str]
) -> None:
    age(sessions, days=days)
    cleaner = retention(sessions, tmp_path, **kept)
    folder = tmp_path / "runs" / job_id
    preview = cleaner.clean(dry_run=True)
    assert files(folder) == KEPT | LEFT | STATES
    assert preview == cleaner.clean()
    assert files(folder) == (KEPT | LEFT | STATES) - gone
    assert preview.bytes.total() == 5 * len(gone)
    assert preview.count[Kind.TRAINING_CHECKPOINTS] == len(gone & STATES)
    assert cleaner.clean().count.total() == 0
    assert not (tmp_path / "runs" / job_id / "attempt-1" / "states").exists() or not gone & STATES


@pytest.mark.parametrize("status", ["queued", "paused", "running"])
def test_job_that_goes_on_keeps_all_its_files(sessions: Sessions, tmp_path: Path, job_id: str, status: str) -> None:
    with sessions.begin() as session:
        actions.retry(session, job_id)
        if status == "paused":
            actions.pause(session, job_id)
        if status == "running":
            assert claim(session) is not None
    zero = timedelta(0)
    retention(sessions, tmp_path, keep_run_folders=zero, keep_training_checkpoints=zero, keep_logs=zero).clean()
    assert files(tmp_path / "runs" / job_id) == KEPT | LEFT | STATES


def test_retried_job_is_cleaned_after_its_new_end(sessions: Sessions, tmp_path: Path, job_id: str) -> None:
    age(sessions, days=31)
    cleaner = retention(sessions, tmp_path)
    cleaner.clean()
    with sessions.begin() as session:
        actions.retry(session, job_id)
        assert claim(session) is not None
        attempts.finish(session, job_id, 3, FAILED, RETRIES)
    write(tmp_path / "runs" / job_id, {"attempt-3/states/step-000011/state"})
    age(sessions, days=31)
    # In the database's clock the last cleaning was a moment ago; it was before the new end all the same.
    with sessions.begin() as session:
        session.execute(sa.update(Job).values(cleaned_at=Job.finished_at - timedelta(days=1)))
    assert cleaner.clean().count[Kind.TRAINING_CHECKPOINTS] == 1


def test_adapter_in_use_by_another_job_stays(sessions: Sessions, tmp_path: Path, job_id: str) -> None:
    age(sessions, days=31)
    with sessions.begin() as session:
        other = jobs.create(session, make_recipe(), start_from_job=job_id).id
    assert retention(sessions, tmp_path).clean().count.total() == 0
    with sessions.begin() as session:
        actions.cancel(session, other)
    assert retention(sessions, tmp_path).clean().count.total() == len(LEFT | STATES)


def test_copies_of_what_is_in_a_bucket_are_left_over(sessions: Sessions, tmp_path: Path) -> None:
    job_id = end(sessions)
    write(tmp_path / "runs" / job_id, KEPT | LEFT | STATES)
    bucket = Bucket(tmp_path / "bucket")
    add_artifacts(sessions, tmp_path, job_id, bucket)
    unpublished = Artifact(job_id=job_id, name="late.tar", kind="checkpoint", path=f"{job_id}/attempt-2/late", bytes=5)
    with sessions.begin() as session:
        artifacts.add(session, unpublished)
    write(tmp_path / "runs" / job_id, {"attempt-2/late/weights"})
    before = files(tmp_path / "bucket")
    age(sessions, days=8)
    retention(sessions, tmp_path, bucket).clean()
    assert files(tmp_path / "runs" / job_id) == STATES | {"attempt-2/late/weights"}
    assert files(tmp_path / "bucket") == before


def test_file_that_cannot_be_deleted_stops_no_other(
    sessions: Sessions, tmp_path: Path, job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "runs" / job_id / "attempt-1" / "trainer.log").unlink()
    (tmp_path / "runs" / job_id / "attempt-1" / "trainer.log").symlink_to("/nowhere")
    age(sessions, days=8)
    retention(sessions, tmp_path).clean()
    assert files(tmp_path / "runs" / job_id) == KEPT | STATES
    assert not (tmp_path / "runs" / job_id / "attempt-1" / "trainer.log").is_symlink()


def test_old_logs_and_exports_go_with_their_rows(sessions: Sessions, tmp_path: Path) -> None:
    job_id = end(sessions, AttemptEnd(JobStatus.SUCCEEDED))
    write(tmp_path / "runs" / job_id, KEPT)
    add_artifacts(sessions, tmp_path, job_id)
    with sessions.begin() as session:
        export, _ = exports.request(session, job_id, Wanted("merged"), None)
        claimed = exports.claim(session, "worker", timedelta(minutes=1))
        assert claimed is not None
        folder = f"runs/{exports.folder(export)}"
        write(tmp_path / folder, {"merged/model", "log"})
        exports.succeed(session, export.id, 1, exports.artifact(export), artifacts.Digests([], 5, "0" * 64))
        session.execute(sa.update(Export).values(finished_at=sa.func.now() - timedelta(days=2)))
    age(sessions, days=2)
    assert retention(sessions, tmp_path).clean().count.total() == 0
    cleaner = retention(sessions, tmp_path, keep_logs=timedelta(days=1), keep_exports=timedelta(days=1))
    assert cleaner.clean(dry_run=True) == cleaner.clean()
    while deletions.delete_next(sessions, [FolderStorage(tmp_path)]):
        pass
    assert files(tmp_path / "runs" / job_id) == KEPT - {"attempt-2/trainer.log"}
    with sessions.begin() as session:
        assert {each.name for each in artifacts.list_published(session, job_id)} == {"adapter.tar", "checkpoint-2.tar"}
        assert exports.request(session, job_id, Wanted("merged"), None)[1]


def test_unused_datasets_are_deleted_and_shared_bytes_stay(sessions: Sessions, tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    with sessions.begin() as session:
        made = {
            name: datasets.create(session, "anna", f"{name}.jsonl", Source(5, sha256=sha)).id
            for name, sha in {"unused": "a1", "shared": "b2", "also": "b2", "needed": "c3", "lately": "d4"}.items()
        }
        path = datasets.create(session, "anna", "path.jsonl", Source(5, path="/data/rows.jsonl")).id
        jobs.create(session, make_recipe(), training_file=made["needed"])
        ended = jobs.create(session, make_recipe(), validation_file=made["lately"]).id
        actions.cancel(session, ended)
        session.execute(
            sa.text("UPDATE datasets SET created_at = now() - interval '3 days' WHERE id <> :id"), {"id": made["also"]}
        )
    write(tmp_path, {datasets.blob_key(sha) for sha in ("a1", "b2", "c3", "d4")})
    cleaner = retention(sessions, tmp_path, storage, keep_datasets=timedelta(days=2))
    preview = cleaner.clean(dry_run=True)
    assert (preview.count[Kind.DATASETS], preview.bytes[Kind.DATASETS]) == (2, 5)
    assert cleaner.clean() == preview
    with sessions.begin() as session:
        left = {each.id for each in datasets.list_datasets(session, 100, None)}
    assert left == {made["also"], made["needed"], made["lately"], path}
    assert files(tmp_path / "blobs") == {f"{sha}/{sha}" for sha in ("b2", "c3", "d4")}


def test_run_folders_are_measured_once_after_each_attempt(sessions: Sessions, tmp_path: Path, job_id: str) -> None:
    cleaner = retention(sessions, tmp_path)
    cleaner.measure()
    assert run_bytes(sessions, job_id) == 0  # its files may still change
    age(sessions, minutes=2)
    cleaner.measure()
    assert run_bytes(sessions, job_id) == 5 * len(LEFT | STATES | {"attempt-2/recipe.json"})
    with sessions.begin() as session:
        assert jobs.get(session, job_id).artifact_bytes == published_bytes(sessions) > 0
    with sessions.begin() as session:
        assert quotas.count_bytes(session, "anna") == run_bytes(sessions, job_id) + published_bytes(sessions)
    write(tmp_path / "runs" / job_id, {"attempt-2/more"})
    cleaner.measure()
    assert run_bytes(sessions, job_id) == 5 * len(LEFT | STATES | {"attempt-2/recipe.json"})
    age(sessions, days=31)
    cleaner.clean()
    assert run_bytes(sessions, job_id) == 5 * 2


def test_changed_artifacts_are_counted_at_once(sessions: Sessions, tmp_path: Path, job_id: str) -> None:
    age(sessions, minutes=2)
    retention(sessions, tmp_path).measure()

    def both() -> tuple[int, int]:
        with sessions.begin() as session:
            return quotas.count_bytes(session, "anna"), run_bytes(sessions, job_id) + published_bytes(sessions)

    with sessions.begin() as session:
        artifacts.delete(session, [artifacts.get(session, job_id, "adapter.tar")])
    assert both()[0] == both()[1]
    retention(sessions, tmp_path).measure()
    assert both()[0] == both()[1]
    with sessions.begin() as session:
        artifacts.add(session, Artifact(job_id=job_id, name="b", kind="log", path=f"{job_id}/attempt-1/b", bytes=77))
    assert both()[0] == both()[1]


def run_bytes(sessions: Sessions, job_id: str) -> int:
    with sessions.begin() as session:
        return jobs.get(session, job_id).run_bytes


def published_bytes(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return session.scalar(sa.select(sa.func.sum(Artifact.bytes))) or 0


def test_cleaned_job_leaves_no_deletion_behind(sessions: Sessions, tmp_path: Path, job_id: str) -> None:
    age(sessions, days=31)
    retention(sessions, tmp_path).clean()
    with sessions.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Deletion)) == 0


@pytest.mark.parametrize(
    ("given", "kept"), [("forever", None), ("P7D", timedelta(days=7)), ("60", timedelta(minutes=1))]
)
def test_retention_setting_is_a_duration_or_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, kept: timedelta | None
) -> None:
    monkeypatch.setenv("FINETUNED_KEEP_RUN_FOLDERS", given)
    assert settings(tmp_path).keep_run_folders == kept
    monkeypatch.setenv("FINETUNED_KEEP_RUN_FOLDERS", "-P1D")
    with pytest.raises(ValidationError):
        settings(tmp_path)
