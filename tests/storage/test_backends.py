import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from runtime.settings import StoreSettings
from storage.backends import LARGEST_CHUNK, Storage, make_storage
from storage.errors import StorageUnavailable
from tests.support import s3
from tests.support.servers import free_port


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    port = free_port()
    with s3.running_s3(port):
        yield port


def settings(home: Path, storage: str | None) -> StoreSettings:
    return StoreSettings(database_url=SecretStr("x"), broker_url=SecretStr("x"), home=home, storage=storage)


def bucket(home: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for name, value in s3.environment(port).items():
        monkeypatch.setenv(name, value)
    return make_storage(settings(home, f"s3://{s3.BUCKET}/deep/prefix"))


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """The same promises, wherever the bytes are."""
    if request.param == "local":
        return make_storage(settings(tmp_path / "home", None))
    return bucket(tmp_path / "home", request.getfixturevalue("port"), monkeypatch)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_secret_key_may_be_a_setting(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment(port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    given = settings(tmp_path, f"s3://{s3.BUCKET}")
    storage = make_storage(given.model_copy(update={"storage_secret_key": SecretStr(s3.SECRET)}))
    storage.put_file("key", write(tmp_path / "file", b"content"))
    assert storage.size("key") == 7


BIG = os.urandom(3 * LARGEST_CHUNK + 17)


@pytest.mark.parametrize("content", [b"", b"few", BIG], ids=["empty", "small", "big"])
def test_stored_object_is_read_in_chunks(storage: Storage, tmp_path: Path, content: bytes) -> None:
    storage.put_file("runs/job/weights", write(tmp_path / "file", content))
    assert storage.size("runs/job/weights") == len(content)
    chunks = list(storage.read("runs/job/weights"))
    assert b"".join(chunks) == content
    assert all(len(chunk) <= LARGEST_CHUNK for chunk in chunks)
    middle = len(content) // 3
    assert b"".join(storage.read("runs/job/weights", middle)) == content[middle:]
    assert b"".join(storage.read("runs/job/weights", middle, 2 * middle)) == content[middle : 2 * middle]


@pytest.mark.parametrize("size", [0, 7, 5 * LARGEST_CHUNK])
def test_closed_writer_has_stored_its_bytes(storage: Storage, size: int) -> None:
    key = f"blobs/ab/written-{size}"
    with storage.open_writer(key) as writer:
        for _ in range(5):
            writer.write(bytes(size // 5))
        assert not storage.exists(key)
    assert storage.size(key) == size // 5 * 5


@pytest.mark.parametrize("size", [7, 5 * LARGEST_CHUNK])
def test_writer_that_breaks_off_leaves_nothing(storage: Storage, size: int) -> None:
    def break_off() -> None:
        with storage.open_writer("blobs/ab/half") as writer:
            writer.write(bytes(size))
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert not storage.exists("blobs/ab/half")


def test_deletion_is_idempotent(storage: Storage, tmp_path: Path) -> None:
    storage.put_file("blobs/ab/c", write(tmp_path / "file", b"x"))
    assert storage.exists("blobs/ab/c")
    storage.delete("blobs/ab/c")
    storage.delete("blobs/ab/c")
    assert not storage.exists("blobs/ab/c")
    assert (tmp_path / "file").read_bytes() == b"x"


def test_whole_tree_is_deleted_and_no_neighbour(storage: Storage, tmp_path: Path) -> None:
    keys = ["runs/job_1/attempt-1/a/b", "runs/job_1/c", "runs/job_10/c", "runs/job_2"]
    for key in keys:
        storage.put_file(key, write(tmp_path / "file", b"x"))
    storage.delete_tree("runs/job_1")
    storage.delete_tree("runs/job_1")
    assert [key for key in keys if storage.exists(key)] == ["runs/job_10/c", "runs/job_2"]
    storage.delete_tree("runs/job_2")
    assert not storage.exists("runs/job_2")


def test_missing_object_is_not_found(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(storage.read("runs/none"))
    with pytest.raises(FileNotFoundError):
        storage.size("runs/none")
    with pytest.raises(FileNotFoundError):
        storage.fetch("runs/none", tmp_path / "copy" / "none")
    assert list((tmp_path / "copy").iterdir()) == []


def test_copy_is_fetched_as_a_whole(storage: Storage, tmp_path: Path) -> None:
    storage.put_file("runs/a/b", write(tmp_path / "file", BIG))
    storage.fetch("runs/a/b", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == BIG
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["copy"]


def test_missing_trailing_bytes_are_noticed(storage: Storage, tmp_path: Path) -> None:
    storage.put_file("runs/short", write(tmp_path / "file", b"1234"))
    with pytest.raises(EOFError):
        list(storage.read("runs/short", 2, 9))


@pytest.mark.parametrize("key", ["../out", "runs/../../out", "runs/a\0b"])
def test_key_that_leads_out_is_refused(storage: Storage, tmp_path: Path, key: str) -> None:
    write(tmp_path / "out", b"not yours")
    with pytest.raises(ValueError, match=r"pars|key"):
        list(storage.read(key))


def test_file_that_has_gone_is_not_put(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.put_file("runs/job/none", tmp_path / "none")


def test_home_files_are_stored_in_place(tmp_path: Path) -> None:
    ours = make_storage(settings(tmp_path, None))
    path = write(tmp_path / "runs" / "job" / "log", b"line")
    ours.put_file("runs/job/log", path)
    assert ours.local_path("runs/job/log") == path
    assert b"".join(ours.read("runs/job/log")) == b"line"
    assert not ours.remote


def test_storage_link_leads_to_nothing_outside(tmp_path: Path) -> None:
    home, disk = tmp_path / "home", tmp_path / "disk"
    write(disk / "job" / "log", b"line")
    write(tmp_path / "secret", b"not yours")
    home.mkdir()
    (home / "runs").symlink_to(disk)
    ours = make_storage(settings(home, None))
    assert b"".join(ours.read("runs/job/log")) == b"line"
    (disk / "job" / "link").symlink_to(tmp_path / "secret")
    (disk / "job" / "circle").symlink_to(disk / "job" / "circle")
    for key in ("runs/job/link", "runs/job/circle"):
        with pytest.raises(OSError, match=r"out of the storage|circle"):
            ours.size(key)


def test_unavailable_bucket_is_reported_without_secrets(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = bucket(tmp_path, free_port(), monkeypatch)
    with pytest.raises(StorageUnavailable) as reported:
        away.exists("runs/any")
    assert s3.SECRET not in str(reported.value)
    assert "\n" not in str(reported.value)
    bucket(tmp_path, port, monkeypatch)
    unmade = make_storage(settings(tmp_path, "s3://no-such-bucket"))
    write(tmp_path / "file", b"x")
    with pytest.raises(StorageUnavailable), unmade.open_writer("runs/any") as writer:
        writer.write(b"x")
    # Not FileNotFoundError: nobody waits for a file that is gone.
    for ask in (
        lambda: unmade.put_file("runs/any", tmp_path / "file"),
        lambda: unmade.size("runs/any"),
        lambda: unmade.exists("runs/any"),
        lambda: list(unmade.read("runs/any")),
        lambda: list(unmade.read("runs/any", 0, 5)),
        lambda: unmade.fetch("runs/any", tmp_path / "copy"),
        lambda: unmade.delete("runs/any"),
        lambda: unmade.delete_tree("runs/any"),
    ):
        with pytest.raises(StorageUnavailable):
            ask()


@pytest.mark.parametrize(
    "given", ["/srv/files", "http://host/bucket", "s3://", "s3://bucket/a/../b", "s3://Bucket name"]
)
def test_invalid_bucket_url_is_refused_at_start(tmp_path: Path, given: str) -> None:
    with pytest.raises(ValidationError, match="storage"):
        settings(tmp_path, given)
