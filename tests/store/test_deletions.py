"""The bytes of what was deleted are deleted too, whatever dies meanwhile."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.backends import FolderStorage
from storage.errors import StorageUnavailable
from store import deletions
from store.models import Deletion
from store.session import Sessions


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    for path in ("job_1/attempt-1/adapter/weights", "job_1/attempt-2/log", "job_2/attempt-1/log"):
        write(tmp_path / "runs" / path)
    return FolderStorage(tmp_path)


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")


def add(sessions: Sessions, *paths: str) -> None:
    with sessions.begin() as session:
        deletions.add(session, paths)


def age(sessions: Sessions, interval: str) -> None:
    """Moves all deletions into the past."""
    with sessions.begin() as session:
        by = sa.text(f"interval '{interval}'")
        session.execute(sa.update(Deletion).values(created_at=Deletion.created_at - by, due_at=Deletion.due_at - by))


def test_files_and_folders_are_deleted_and_no_others(
    sessions: Sessions, storage: FolderStorage, tmp_path: Path
) -> None:
    add(sessions, "job_1/attempt-1/adapter", "job_1/attempt-2/log", "job_3")
    add(sessions, "job_3")
    found = {deletions.delete_next(sessions, [storage]) for _ in range(3)}
    assert found == {"job_1/attempt-1/adapter", "job_1/attempt-2/log", "job_3"}
    assert deletions.delete_next(sessions, [storage]) is None
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"runs/job_2/attempt-1/log"}


def test_file_that_came_later_is_deleted_a_day_later(
    sessions: Sessions, storage: FolderStorage, tmp_path: Path
) -> None:
    add(sessions, "job_1")
    assert deletions.delete_next(sessions, [storage]) == "job_1"
    write(tmp_path / "runs/job_1/attempt-1/late")
    age(sessions, "23 hours")
    assert deletions.delete_next(sessions, [storage]) is None
    age(sessions, "1 hour")
    assert deletions.delete_next(sessions, [storage]) == "job_1"
    assert not (tmp_path / "runs/job_1").exists()
    with sessions.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Deletion)) == 0


class Broken(FolderStorage):
    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(path)
        self.error = error

    def delete_tree(self, key: str) -> None:
        raise self.error


@pytest.mark.parametrize("error", [StorageUnavailable("away"), PermissionError("closed"), KeyboardInterrupt()])
def test_deletion_that_broke_off_is_tried_again(
    sessions: Sessions, storage: FolderStorage, tmp_path: Path, error: Exception
) -> None:
    add(sessions, "job_1")
    with pytest.raises(type(error)):
        deletions.delete_next(sessions, [Broken(tmp_path, error), storage])
    assert deletions.delete_next(sessions, [storage]) is None  # another worker leaves it alone for a while
    age(sessions, "10 minutes")
    assert deletions.delete_next(sessions, [storage]) == "job_1"
    assert not (tmp_path / "runs/job_1").exists()


def test_rolled_back_deletion_deletes_nothing(sessions: Sessions, storage: FolderStorage, tmp_path: Path) -> None:
    def fail() -> None:
        with sessions.begin() as session:
            deletions.add(session, ["job_1"])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert deletions.delete_next(sessions, [storage]) is None
    assert (tmp_path / "runs/job_1").exists()


@pytest.mark.parametrize("path", ["", "../x", "a/../../x"])
def test_path_that_leads_out_deletes_nothing(
    sessions: Sessions, storage: FolderStorage, tmp_path: Path, path: str
) -> None:
    write(tmp_path / "x" / "file")

    def delete() -> None:
        add(sessions, path)
        deletions.delete_next(sessions, [storage])

    with pytest.raises((ValueError, sa.exc.IntegrityError)):
        delete()
    assert (tmp_path / "x" / "file").exists()
    assert (tmp_path / "runs/job_1").exists()
