import gzip
import hashlib
import io
import json
import lzma
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from api.settings import ApiSettings
from store import datasets
from store.access import quotas
from store.errors import QuotaExceeded
from store.models import Blob, Dataset
from store.session import Sessions
from tests.support.api import ADMIN_KEY, ROWS_FILE, bearer, error_of, make_key, serve, upload, wait_until_checked
from tests.support.files import ROW
from tests.support.waiting import until


def parquet(rows: list[Any]) -> bytes:
    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), written)
    return written.getvalue()


def blobs(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "blobs").rglob("*") if path.is_file())


def test_upload_is_stored_by_digest_and_checked(client: TestClient, home: Path) -> None:
    dataset = upload(client, ROWS_FILE * 3)
    sha256 = hashlib.sha256(ROWS_FILE * 3).hexdigest()
    assert (dataset["status"], dataset["status_details"], dataset["filename"]) == ("processed", None, "rows.jsonl")
    assert (dataset["sha256"], dataset["bytes"], dataset["rows"]) == (sha256, 3 * len(ROWS_FILE), 3)
    assert (dataset["format"], dataset["purpose"], dataset["owner"]) == ("messages", "fine-tune", "default")
    assert (dataset["report"]["duplicates"], dataset["report"]["error_count"]) == (2, 0)
    assert datasets.is_id(dataset["id"])
    assert blobs(home) == [sha256]
    assert (home / "blobs" / sha256[:2] / sha256).read_bytes() == ROWS_FILE * 3
    assert list((home / "incoming").iterdir()) == []
    content = client.get(f"/datasets/{dataset['id']}/content")
    assert content.content == ROWS_FILE * 3
    assert "rows.jsonl" in content.headers["content-disposition"]


def test_bad_rows_are_all_named(client: TestClient) -> None:
    dataset = upload(client, ROWS_FILE + b"{\n" + ROWS_FILE + b'{"text": "\xff"}\n' + b'{"messages": []}\n')
    assert dataset["status"] == "error"
    assert dataset["status_details"].startswith("row 2: is not JSON")
    assert dataset["status_details"].endswith("; and 2 more")
    assert [problem["row"] for problem in dataset["report"]["errors"]] == [2, 4, 5]


@pytest.mark.parametrize(
    ("name", "content", "fields"),
    [
        ("rows.json", json.dumps([ROW, ROW]).encode(), {}),
        ("rows.jsonl.gz", gzip.compress(ROWS_FILE * 2, mtime=0), {}),
        ("faq.csv", b"prompt,completion\na,b\nc,d\n", {}),
        ("faq.csv", b"question,answer\na,b\nc,d\n", {"columns": '{"prompt": "question", "completion": "answer"}'}),
        ("rows.parquet", parquet([ROW, ROW]), {}),
        ("rows.csv.gz", gzip.compress(b"text\na\nb\n", mtime=0), {"format": "text"}),
        ("rows.jsonl.xz", lzma.compress(ROWS_FILE * 2), {}),
        ("rows.jsonl", (ROWS_FILE * 2).decode().encode("utf-16"), {}),
        ("dolly.csv", b"instruction,context,response\na,b,c\nd,,e\n", {}),
        ("book.txt", b"text\nand,more\n" * 200, {}),
    ],
)
def test_every_kind_of_file_trains(client: TestClient, name: str, content: bytes, fields: dict[str, str]) -> None:
    dataset = upload(client, content, name, **fields)
    assert (dataset["status"], dataset["rows"]) == ("processed", 2), dataset
    job = client.post("/jobs", json={"model": "tiny", "dataset": dataset["id"]})
    assert job.status_code == 201, job.text
    recipe = job.json()["recipe"]["dataset"]
    assert (recipe["path"], recipe["sha256"], recipe["columns"]) == (
        dataset["id"],
        dataset["sha256"],
        dataset["columns"],
    )
    assert (recipe["format"], recipe["filename"]) == (dataset["format"], name)


def test_public_dataset_columns_reach_the_job(client: TestClient) -> None:
    dataset = upload(client, b"instruction,context,response\na,,c\nd,b,e\n", "dolly.csv")
    assert dataset["format"] == "alpaca"
    assert dataset["columns"] == dataset["report"]["columns"] == {"output": "response", "input": "context"}
    job = client.post("/jobs", json={"model": "tiny", "dataset": dataset["id"]}).json()
    assert job["recipe"]["dataset"]["columns"] == dataset["columns"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.zip", b"PK\x03\x04 and more", "is a zip archive"),
        ("rows.jsonl", b'{\n  "text": "a"\n}\n{\n  "text": "b"\n}\n', "jq -c ."),
        ("rows.csv", b"question,answer,response\na,b,c\n", "could be the question"),
    ],
)
@pytest.mark.parametrize("wire", ["/datasets", "/v1/files"])
def test_invalid_file_is_refused_once(client: TestClient, wire: str, name: str, content: bytes, words: str) -> None:
    answer = client.post(wire, files={"file": (name, content)}, data={"purpose": "fine-tune"})
    dataset = wait_until_checked(client, answer.json()["id"])
    assert dataset["status"] == "error"
    assert words in dataset["status_details"]
    assert [problem["row"] for problem in dataset["report"]["errors"]] == [None]


def test_equal_bytes_are_stored_once_until_deleted(client: TestClient, home: Path) -> None:
    first, second = upload(client), upload(client, name="again.jsonl")
    assert first["id"] != second["id"]
    assert len(blobs(home)) == 1
    assert client.delete(f"/datasets/{first['id']}").json() == {"id": first["id"], "deleted": True}
    assert len(blobs(home)) == 1
    assert client.get(f"/datasets/{second['id']}/content").content == ROWS_FILE
    client.delete(f"/datasets/{second['id']}").raise_for_status()
    assert blobs(home) == []
    error_of(client.get(f"/datasets/{second['id']}"), 404, "not_found")
    error_of(client.delete(f"/datasets/{second['id']}"), 404, "not_found")


def test_racing_uploads_and_deletions_keep_the_bytes(client: TestClient, home: Path, sessions: Sessions) -> None:
    def come_and_go(number: int) -> None:
        for _ in range(6):
            answer = client.post("/datasets", files={"file": (f"{number}.jsonl", ROWS_FILE)})
            assert answer.status_code == 201, answer.text
            path = f"/datasets/{answer.json()['id']}"
            assert client.get(f"{path}/content").content == ROWS_FILE
            client.delete(path).raise_for_status()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    with sessions.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Dataset)) == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(Blob)) == 0
    assert blobs(home) == []


def test_datasets_are_paged_newest_first(client: TestClient) -> None:
    ids = [upload(client, ROWS_FILE * n)["id"] for n in (1, 2, 3)]
    page = client.get("/datasets?limit=2").json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    assert "report" not in page["data"][0]
    page = client.get(f"/datasets?limit=2&after={ids[1]}").json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([ids[0]], False)
    error_of(client.get("/datasets?after=file-" + "0" * 24), 404, "not_found")


@pytest.mark.parametrize(
    "given",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "..\\..\\boot.ini",
        "a/../../b.jsonl",
        ".",
        "..",
        "x" * 3000 + ".jsonl",
        "a\tb",
        "é八",
    ],
)
def test_file_name_reaches_no_file_of_the_server(client: TestClient, home: Path, given: str) -> None:
    dataset = upload(client, name=given)
    assert "/" not in dataset["filename"]
    assert len(dataset["filename"]) <= 255
    assert blobs(home) == [hashlib.sha256(ROWS_FILE).hexdigest()]
    assert {path.name for path in home.iterdir()} <= {"blobs", "incoming", "models", "datasets"}


def body(*parts: tuple[str, bytes], end: str = "--x--\r\n") -> bytes:
    return b"".join(f"--x\r\n{head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts) + end.encode()


FILE = 'Content-Disposition: form-data; name="file"; filename="a.jsonl"'
FIELD = 'Content-Disposition: form-data; name="format"'


@pytest.mark.parametrize(
    ("content", "param"),
    [
        (b"", "body"),
        (b"no form", "body"),
        (body((FILE, ROWS_FILE), end=""), "body"),
        (body((FILE, ROWS_FILE))[:-20], "body"),
        (body((FIELD, b"text")), "file"),
        (body((FILE, ROWS_FILE), (FILE, ROWS_FILE)), "file"),
        (body((FIELD, b"no format"), (FILE, ROWS_FILE)), "format"),
        (body((FIELD, b"text"), (FIELD, b"text"), (FILE, ROWS_FILE)), "format"),
        (body((FIELD, b"x" * 100_000), (FILE, ROWS_FILE)), "format"),
        (body(("Content-Disposition: form-data; name=columns", b"[" * 60_000), (FILE, ROWS_FILE)), "columns"),
        (body(("Content-Disposition: form-data; name=color", b"red"), (FILE, ROWS_FILE)), "color"),
        (body(("X: " + "y" * 100_000, b""), (FILE, ROWS_FILE)), "body"),
    ],
)
def test_invalid_form_is_refused_and_leaves_nothing(client: TestClient, home: Path, content: bytes, param: str) -> None:
    answer = client.post("/datasets", content=content, headers={"content-type": "multipart/form-data; boundary=x"})
    assert error_of(answer, 422, "invalid_parameter")["param"] == param
    assert not list((home / "incoming").iterdir())
    assert client.get("/datasets").json()["data"] == []


def test_another_kind_of_body_is_refused(client: TestClient) -> None:
    for kind in ("text/plain", "multipart/form-data", ""):
        answer = client.post("/datasets", content=ROWS_FILE, headers={"content-type": kind})
        assert error_of(answer, 422, "invalid_parameter")["param"] == "Content-Type"


@pytest.fixture
def small(settings: ApiSettings, sessions: Sessions) -> Iterator[TestClient]:
    """Takes files of 100 kB."""
    with serve(settings.model_copy(update={"largest_dataset": 100_000})) as client:
        yield client


def test_oversized_file_is_refused_before_it_is_read(small: TestClient, home: Path) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": str(10 << 30)}
    error_of(small.post("/datasets", content=b"", headers=headers), 413, "too_large")
    assert not (home / "incoming").exists()


def test_packed_bomb_is_not_unpacked(small: TestClient) -> None:
    dataset = upload(small, gzip.compress(b"\n" * (30 << 20)), "bomb.jsonl.gz")
    assert dataset["bytes"] < 100_000
    assert dataset["status"] == "error"
    assert "unpacks to more than 100000 bytes" in dataset["status_details"]


def test_file_of_the_server_is_referenced_in_place(client: TestClient, home: Path) -> None:
    answer = client.post("/datasets", json={"path": "rows.jsonl"})
    assert answer.status_code == 201, answer.text
    dataset = wait_until_checked(client, answer.json()["id"])
    assert (dataset["status"], dataset["path"], dataset["sha256"], dataset["rows"]) == (
        "processed",
        "rows.jsonl",
        None,
        3,
    )
    assert client.get(f"/datasets/{dataset['id']}/content").content == (home / "datasets" / "rows.jsonl").read_bytes()
    job = client.post("/jobs", json={"model": "tiny", "dataset": dataset["id"]}).json()
    assert job["recipe"]["dataset"]["sha256"] == hashlib.sha256(ROWS_FILE * 3).hexdigest()


def test_no_path_leaves_the_allowed_folders(client: TestClient, home: Path) -> None:
    (home / "secret.jsonl").write_bytes(ROWS_FILE)
    (home / "datasets" / "link.jsonl").symlink_to(home / "secret.jsonl")
    (home / "datasets" / "folder").symlink_to(home)
    (home / "datasets" / "loop").symlink_to(home / "datasets" / "loop")
    for path in (
        "link.jsonl",
        "folder/secret.jsonl",
        "../secret.jsonl",
        str(home / "secret.jsonl"),
        "/etc/passwd",
        "loop",
        "/proc/self/environ",
        ".",
    ):
        error_of(client.post("/datasets", json={"path": path}), 422, "dataset_not_found")
    # One that is put in its place later leads nowhere either.
    (home / "datasets" / "honest.jsonl").write_bytes(ROWS_FILE)
    dataset = client.post("/datasets", json={"path": "honest.jsonl"}).json()
    wait_until_checked(client, dataset["id"])
    (home / "datasets" / "honest.jsonl").unlink()
    (home / "datasets" / "honest.jsonl").symlink_to(home / "secret.jsonl")
    error_of(client.get(f"/datasets/{dataset['id']}/content"), 422, "dataset_not_found")


@pytest.mark.parametrize(
    "reference",
    [
        {},
        {"path": "rows.jsonl", "hub": "a/b", "file": "c"},
        {"hub": "a/b"},
        {"hub": "a", "file": "c"},
        {"hub": "a/b", "file": "../c"},
        {"hub": "a/b", "file": "/etc/passwd"},
        {"hub": "a/b", "file": "c", "revision": "../x y"},
        {"path": "rows.jsonl", "format": "xml"},
        {"path": "rows.jsonl", "purpose": "evals"},
        {"path": "\0"},
        [],
    ],
)
def test_reference_that_makes_no_sense_is_refused(client: TestClient, reference: Any) -> None:
    error_of(client.post("/datasets", json=reference), 422, "invalid_parameter")


def test_deeply_nested_json_is_refused(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    error_of(client.post("/datasets", content=b"[" * 100_000, headers=headers), 422, "invalid_parameter")


def test_dataset_of_another_is_not_there(locked: TestClient) -> None:
    anna, bob = (bearer(make_key(locked, owner=name)["secret"]) for name in ("anna", "bob"))
    answer = locked.post("/datasets", files={"file": ("a.jsonl", ROWS_FILE)}, headers=anna)
    dataset_id = answer.json()["id"]
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/content"),
        ("GET", "/report?model=tiny"),
        ("GET", "/preview?model=tiny"),
    ):
        answer = locked.request(method, f"/datasets/{dataset_id}{path}", headers=bob)
        assert error_of(answer, 404, "not_found")["message"] == f"no dataset {dataset_id}"
    assert locked.get("/datasets", headers=bob).json()["data"] == []
    answer = locked.post("/jobs", json={"model": "tiny", "dataset": dataset_id}, headers=bob)
    assert f"no dataset {dataset_id}" in error_of(answer, 422, "dataset_not_found")["message"]
    recipe = {"model": "tiny", "dataset": "rows.jsonl", "evaluation": {"dataset": dataset_id}}
    error_of(locked.post("/jobs", json=recipe, headers=bob), 422, "dataset_not_found")
    assert locked.get(f"/datasets/{dataset_id}", headers=anna).status_code == 200
    assert [each["id"] for each in locked.get("/datasets", headers=bearer(ADMIN_KEY)).json()["data"]] == [dataset_id]


def test_bytes_over_quota_are_refused_and_dropped(client: TestClient, sessions: Sessions, home: Path) -> None:
    with sessions.begin() as session:
        quotas.set_limits(session, "default", quotas.Limits(None, None, 3 * len(ROWS_FILE)))
    upload(client, ROWS_FILE * 2)
    upload(client, ROWS_FILE * 2, "again.jsonl")  # the same content counts once
    error_of(client.post("/datasets", files={"file": ("b.jsonl", ROWS_FILE * 3)}), 429, "quota_exceeded")
    assert blobs(home) == [hashlib.sha256(ROWS_FILE * 2).hexdigest()]


def test_concurrent_uploads_count_one_after_another(sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        quotas.set_limits(session, "anna", quotas.Limits(None, None, 10))

    def keep(session: Session, name: str) -> None:
        datasets.create(session, "anna", name, datasets.Source(7, sha256=hashlib.sha256(name.encode()).hexdigest()))
        quotas.check_bytes(session, "anna", 0)

    def keep_another() -> None:
        with sessions.begin() as session:
            keep(session, "second")

    def waits() -> bool:
        with engine.connect() as connection:
            return bool(connection.execute(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar())

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            keep(session, "first")
            second = pool.submit(keep_another)
            until(lambda: waits() or second.done())
        with pytest.raises(QuotaExceeded, match="would keep 14 bytes"):
            second.result()


def test_upload_that_is_sent_again_makes_one_dataset(client: TestClient) -> None:
    headers = {"idempotency-key": "once"}
    first, second = (
        client.post("/datasets", files={"file": ("a.jsonl", ROWS_FILE)}, headers=headers).json()["id"] for _ in range(2)
    )
    assert first == second
    answer = client.post("/datasets", files={"file": ("a.jsonl", ROWS_FILE * 2)}, headers=headers)
    error_of(answer, 422, "idempotency_key_reused")


def test_unchecked_dataset_is_checked_by_the_next_process(
    settings: ApiSettings, sessions: Sessions, home: Path
) -> None:
    (home / "blobs" / "ab").mkdir(parents=True)
    (home / "blobs" / "ab" / ("ab" * 32)).write_bytes(ROWS_FILE)
    with sessions.begin() as session:
        source = datasets.Source(len(ROWS_FILE), sha256="ab" * 32)
        dataset_id = datasets.create(session, "default", "rows.jsonl", source).id
    with serve(settings) as client:
        assert wait_until_checked(client, dataset_id)["status"] == "processed"


def test_dataset_whose_bytes_are_gone_is_told(client: TestClient, home: Path) -> None:
    dataset = upload(client)
    for path in (home / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    answer = client.get(f"/datasets/{dataset['id']}/preview?model=tiny")
    assert "no longer in the storage" in error_of(answer, 422, "dataset_not_found")["message"]
    error_of(client.get(f"/datasets/{dataset['id']}/content"), 422, "dataset_not_found")


def test_full_disk_is_told(client: TestClient, home: Path) -> None:
    """It mounts a small one, as root."""
    incoming = home / "incoming"
    incoming.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(incoming)], check=True)
    try:
        error_of(client.post("/datasets", files={"file": ("a.jsonl", ROWS_FILE * 5000)}), 507, "storage_full")
    finally:
        subprocess.run(["umount", str(incoming)], check=True)
