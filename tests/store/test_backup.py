"""Backups of rows and files, restored into another database and another home."""

import hashlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from contract.events import CheckpointEvent
from runtime.settings import StoreSettings
from storage.backends import FolderStorage
from store import artifacts, datasets, schema, sweeps
from store.access import audit, keys
from store.access.principal import Principal
from store.backup import files, tables
from store.backup.archive import ArchiveReader, ArchiveWriter, BackupError, Header, Manifest, parsed
from store.backup.restore import migrate_by_process, restore
from store.backup.save import save
from store.backup.settings import BackupSettings
from store.jobs import jobs
from store.jobs.jobs import SweepPart
from store.session import Sessions, make_sessions
from tests.support import s3
from tests.support.artifacts import publish
from tests.support.database import dump, empty_database, migrate, new_database
from tests.support.files import contents
from tests.support.jobs import create_job, make_recipe
from tests.support.servers import free_port

ANNA = Principal("anna", admin=True, key_id=None, request_id="request")


def url_of(engine: sa.Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def second(engine: sa.Engine) -> Iterator[sa.Engine]:
    """Another database with today's schema."""
    with new_database(engine, "second") as other:
        migrate(other)
        yield other


@pytest.fixture
def source(sessions: Sessions, engine: sa.Engine, tmp_path: Path) -> BackupSettings:
    return BackupSettings(database_url=SecretStr(url_of(engine)), home=tmp_path / "source")


@pytest.fixture
def target(second: sa.Engine, tmp_path: Path) -> BackupSettings:
    """An empty service."""
    empty_database(second)
    (tmp_path / "target").mkdir()
    return BackupSettings(database_url=SecretStr(url_of(second)), home=tmp_path / "target")


def add_dataset(sessions: Sessions, home: Path, content: bytes) -> str:
    sha256 = hashlib.sha256(content).hexdigest()
    with FolderStorage(home).open_writer(datasets.blob_key(sha256)) as writer:
        writer.write(content)
    with sessions.begin() as session:
        return datasets.create(session, "anna", "a.jsonl", datasets.Source(len(content), sha256)).id


def add_checkpoint(sessions: Sessions, home: Path, job_id: str, step: int) -> None:
    """Published."""
    folder = home / "runs" / job_id / "attempt-1" / "checkpoints" / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(bytes(step) * 1000)
    event = CheckpointEvent(time=1, step=step, path=f"checkpoints/step-{step}", bytes=1, final=False, eval_loss=None)
    with sessions.begin() as session:
        artifacts.add_checkpoint(session, job_id, 1, event)
    publish(sessions, home)


def is_migrated(_: str) -> None:
    """The second database is."""


def saved(source: StoreSettings) -> bytes:
    stream = BytesIO()
    save(source, stream)
    return stream.getvalue()


@pytest.fixture
def filled(source: BackupSettings, sessions: Sessions) -> BackupSettings:
    """With rows that need care: of each order of foreign keys, with escapes, and in the audit, which only grows."""
    add_dataset(sessions, source.home, b"{}\n")
    job_id = create_job(sessions, name="tab\there, \\N and \u2028 there")
    add_checkpoint(sessions, source.home, job_id, 2)
    (source.home / "runs" / job_id / "attempt-1" / "events.jsonl").write_text("{}\n")
    (source.home / "runs" / job_id / "attempt-1" / ".state.partial").write_text("half")
    with sessions.begin() as session:
        keys.create(session, "anna", None, admin=True)
        audit.record(session, ANNA, "job.create", job_id)
        sweep = sweeps.create(session, "anna", None, ["seed"])
        jobs.create(session, make_recipe(), "anna", part=SweepPart(sweep.id, {"seed": 1}))
    return source


def test_restored_rows_and_files_are_equal(
    filled: BackupSettings, target: BackupSettings, engine: sa.Engine, second: sa.Engine
) -> None:
    manifest = restore(target, BytesIO(saved(filled)), is_migrated)
    assert dump(second) == dump(engine)
    expected = {name: content for name, content in contents(filled.home).items() if not name.endswith(".partial")}
    assert contents(target.home) == expected
    assert manifest.files == len(expected) == 3
    with make_sessions(second).begin() as session:  # its number is free
        audit.record(session, ANNA, "job.create")


def test_backup_has_every_table(filled: BackupSettings, engine: sa.Engine) -> None:
    reader = ArchiveReader(BytesIO(saved(filled)))
    manifest = parsed(Manifest, [[b"".join(chunks) for _, chunks in reader.members()][-1]])
    assert {table.name for table in manifest.tables} == set(dump(engine)) - {"alembic_version"}


def test_torn_or_altered_archive_is_refused_or_whole(
    filled: BackupSettings, target: BackupSettings, engine: sa.Engine, second: sa.Engine
) -> None:
    archive, empty, full = saved(filled), dump(second), dump(engine)

    @settings(max_examples=25, deadline=None)
    @given(at=st.integers(0, len(archive) - 1), bit=st.none() | st.integers(0, 7))
    def try_to_restore(at: int, bit: int | None) -> None:
        altered = archive[:at] if bit is None else archive[:at] + bytes([archive[at] ^ 1 << bit]) + archive[at + 1 :]
        try:
            restore(target, BytesIO(altered), is_migrated)
        except BackupError:
            assert contents(target.home) == {}
            assert dump(second) == empty
        else:  # it was in the padding of the tar
            assert dump(second) == full
            assert len(contents(target.home)) == 3
            empty_database(second)
            for path in sorted(target.home.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()

    try_to_restore()


def test_restore_into_a_used_service_is_refused(
    filled: BackupSettings, target: BackupSettings, second: sa.Engine
) -> None:
    archive = saved(filled)
    job_id = create_job(make_sessions(second))
    with pytest.raises(BackupError, match=r"the database is not empty: its table events has rows"):
        restore(target, BytesIO(archive), is_migrated)
    empty_database(second)
    (target.home / "runs" / job_id).mkdir(parents=True)
    (target.home / "runs" / job_id / "log").touch()
    with pytest.raises(BackupError, match=f"files of another service, such as runs/{job_id}/log"):
        restore(target, BytesIO(archive), is_migrated)
    assert list(contents(target.home)) == [f"runs/{job_id}/log"]


def test_killed_restore_can_be_repeated(
    filled: BackupSettings, target: BackupSettings, engine: sa.Engine, second: sa.Engine
) -> None:
    leftover = target.home / "runs" / ".restore" / "job_1" / "file"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    restore(target, BytesIO(saved(filled)), is_migrated)
    assert dump(second) == dump(engine)
    assert not leftover.parent.parent.exists()


class During(BytesIO):
    """An archive; something happens when its first megabyte is written."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self._action = action

    def write(self, data: Any) -> int:
        action, self._action = self._action, lambda: None
        action()
        return super().write(data)


def test_changes_during_a_backup_leave_it_consistent(
    filled: BackupSettings, target: BackupSettings, sessions: Sessions, engine: sa.Engine, second: sa.Engine
) -> None:
    first = b"first" * (1 << 20)
    kept = {add_dataset(sessions, filled.home, first): first}
    deleted = add_dataset(sessions, filled.home, b"deleted")

    def change() -> None:
        kept[add_dataset(sessions, filled.home, b"new")] = b"new"
        add_checkpoint(sessions, filled.home, create_job(sessions), 4)
        with sessions.begin() as session:
            sha256 = datasets.remove(session, deleted, None)
            assert sha256 is not None
            datasets.delete_unused_blob(session, FolderStorage(filled.home), sha256)

    stream = During(change)
    assert save(filled, stream).missing == set()
    restore(target, BytesIO(stream.getvalue()), is_migrated)
    assert dump(second) == dump(engine)
    assert named_bytes(target) == named_bytes(filled)


def named_bytes(service: BackupSettings) -> dict[str, str]:
    """Digests of what the rows name, which the storage has all of."""
    engine = sa.create_engine(service.database_url.get_secret_value(), poolclass=sa.NullPool)
    with engine.connect() as connection:
        keys = files.read_named(connection).keys
    assert {key: hashlib.sha256((service.home / key).read_bytes()).hexdigest() for key in keys} == keys
    return keys


def test_missing_and_changed_bytes_are_reported(filled: BackupSettings, target: BackupSettings) -> None:
    keys = sorted(named_bytes(filled))
    (filled.home / keys[0]).unlink()
    (filled.home / keys[1]).write_bytes(b"other")
    stream = BytesIO()
    found = save(filled, stream)
    assert (found.missing, found.changed) == ({keys[0]}, {keys[1]})
    assert restore(target, BytesIO(stream.getvalue()), is_migrated).rows == found.manifest.rows


def test_bytes_move_between_home_and_bucket(filled: BackupSettings, target: BackupSettings, second: sa.Engine) -> None:
    with pytest.MonkeyPatch.context() as patch, s3.running_s3(port := free_port()):
        for name, value in s3.environment(port).items():
            patch.setenv(name, value)
        in_bucket = target.model_copy(update={"storage": f"s3://{s3.BUCKET}/ours"})
        restore(in_bucket, BytesIO(saved(filled)), is_migrated)
        assert list(contents(target.home)) == [name for name in contents(filled.home) if name.endswith("events.jsonl")]
        archive = saved(in_bucket)
        empty_database(second)
        (target.home / "runs").rename(target.home.with_name("gone"))
        with pytest.raises(BackupError, match="files of another service, such as"):
            restore(in_bucket, BytesIO(archive), is_migrated)
        restore(target, BytesIO(archive), is_migrated)
    assert named_bytes(target) == named_bytes(filled)


def test_backup_of_a_newer_version_is_refused(target: BackupSettings) -> None:
    stream = BytesIO()
    ArchiveWriter(stream, Header(revision="20990101_later", created_at="")).close(Manifest(tables=[], digests={}))
    with pytest.raises(BackupError, match="20990101_later, which this version does not know"):
        restore(target, BytesIO(stream.getvalue()), is_migrated)


def test_backup_of_an_older_version_is_migrated(engine: sa.Engine, target: BackupSettings, tmp_path: Path) -> None:
    with new_database(engine, "older") as older, new_database(engine, "empty") as empty:
        revision = schema.REVISIONS[-2]
        migrate(older, revision)
        with older.begin() as rows:
            columns = "id, owner, recipe, status, attempt, retries, priority, event_count, openai_request"
            values = "'job_1', 'anna', '{}', 'queued', 0, 0, 0, 0, '[1]'"
            rows.execute(sa.text(f"INSERT INTO jobs ({columns}) VALUES ({values})"))
        stream = BytesIO()
        writer = ArchiveWriter(stream, Header(revision=revision, created_at=""))
        with older.connect() as rows:
            writer.close(Manifest(tables=tables.write(writer, rows, "tables"), digests=writer.digests))
        settings = target.model_copy(update={"database_url": SecretStr(url_of(empty))})
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FINETUNED_DATABASE_URL", url_of(empty))
            restore(settings, BytesIO(stream.getvalue()), migrate_by_process)
        with empty.connect() as rows:
            assert schema.revision_of(rows) == schema.HEAD
            assert rows.execute(sa.text("SELECT id, openai_request FROM jobs")).one() == ("job_1", [1])
