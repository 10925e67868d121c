import gzip
import hashlib
import io
import json
import lzma
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
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
from tests.api.conftest import ADMIN, bearer, make, serve
from tests.files import ROW
from tests.service import until

GOOD = json.dumps(ROW).encode() + b"\n"


def upload(client: TestClient, content: bytes = GOOD, name: str = "rows.jsonl", **fields: str) -> dict[str, Any]:
    answer = client.post("/datasets", files={"file": (name, content)}, data=fields)
    assert answer.status_code == 201, answer.text
    return wait(client, answer.json()["id"])


def wait(client: TestClient, dataset_id: str) -> dict[str, Any]:
    """Once it is checked."""
    deadline = time.monotonic() + 60
    while (dataset := client.get(f"/datasets/{dataset_id}").json())["status"] == "uploaded":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return dataset  # type: ignore[no-any-return]


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["code"] == code, error
    return error


def parquet(rows: list[Any]) -> bytes:
    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), written)
    return written.getvalue()


def blobs(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "blobs").rglob("*") if path.is_file())


def test_an_upload_is_kept_by_its_digest_checked_and_told_of(client: TestClient, home: Path) -> None:
    dataset = upload(client, GOOD * 3)
    sha256 = hashlib.sha256(GOOD * 3).hexdigest()
    assert (dataset["status"], dataset["status_details"], dataset["filename"]) == ("processed", None, "rows.jsonl")
    assert (dataset["sha256"], dataset["bytes"], dataset["rows"]) == (sha256, 3 * len(GOOD), 3)
    assert (dataset["format"], dataset["purpose"], dataset["owner"]) == ("messages", "fine-tune", "default")
    assert (dataset["report"]["duplicates"], dataset["report"]["error_count"]) == (2, 0)
    assert datasets.is_id(dataset["id"])
    assert blobs(home) == [sha256]
    assert (home / "blobs" / sha256[:2] / sha256).read_bytes() == GOOD * 3
    assert list((home / "incoming").iterdir()) == []
    content = client.get(f"/datasets/{dataset['id']}/content")
    assert content.content == GOOD * 3
    assert "rows.jsonl" in content.headers["content-disposition"]


def test_bad_rows_are_all_named(client: TestClient) -> None:
    dataset = upload(client, GOOD + b"{\n" + GOOD + b'{"text": "\xff"}\n' + b'{"messages": []}\n')
    assert dataset["status"] == "error"
    assert dataset["status_details"].startswith("row 2: is not JSON")
    assert dataset["status_details"].endswith("; and 2 more")
    assert [problem["row"] for problem in dataset["report"]["errors"]] == [2, 4, 5]


@pytest.mark.parametrize(
    ("name", "content", "fields"),
    [
        ("rows.json", json.dumps([ROW, ROW]).encode(), {}),
        ("rows.jsonl.gz", gzip.compress(GOOD * 2, mtime=0), {}),
        ("faq.csv", b"prompt,completion\na,b\nc,d\n", {}),
        ("faq.csv", b"question,answer\na,b\nc,d\n", {"columns": '{"prompt": "question", "completion": "answer"}'}),
        ("rows.parquet", parquet([ROW, ROW]), {}),
        ("rows.csv.gz", gzip.compress(b"text\na\nb\n", mtime=0), {"format": "text"}),
        ("rows.jsonl.xz", lzma.compress(GOOD * 2), {}),
        ("rows.jsonl", (GOOD * 2).decode().encode("utf-16"), {}),
        ("dolly.csv", b"instruction,context,response\na,b,c\nd,,e\n", {}),
        ("book.txt", b"text\nand,more\n" * 200, {}),
    ],
)
def test_every_kind_of_file_is_taken_and_may_be_trained_on(
    client: TestClient, name: str, content: bytes, fields: dict[str, str]
) -> None:
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


def test_the_names_of_a_public_data_set_are_told_and_given_to_the_job(client: TestClient) -> None:
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
def test_a_file_that_is_no_data_set_is_refused_once(
    client: TestClient, wire: str, name: str, content: bytes, words: str
) -> None:
    answer = client.post(wire, files={"file": (name, content)}, data={"purpose": "fine-tune"})
    dataset = wait(client, answer.json()["id"])
    assert dataset["status"] == "error"
    assert words in dataset["status_details"]
    assert [problem["row"] for problem in dataset["report"]["errors"]] == [None]


def test_the_same_bytes_are_stored_once_until_the_last_dataset_goes(client: TestClient, home: Path) -> None:
    first, second = upload(client), upload(client, name="again.jsonl")
    assert first["id"] != second["id"]
    assert len(blobs(home)) == 1
    assert client.delete(f"/datasets/{first['id']}").json() == {"id": first["id"], "deleted": True}
    assert len(blobs(home)) == 1
    assert client.get(f"/datasets/{second['id']}/content").content == GOOD
    client.delete(f"/datasets/{second['id']}").raise_for_status()
    assert blobs(home) == []
    refused(client.get(f"/datasets/{second['id']}"), 404, "not_found")
    refused(client.delete(f"/datasets/{second['id']}"), 404, "not_found")


def test_uploads_and_deletions_of_the_same_bytes_at_once_leave_no_dataset_without_them(
    client: TestClient, home: Path, sessions: Sessions
) -> None:
    def come_and_go(number: int) -> None:
        for _ in range(6):
            answer = client.post("/datasets", files={"file": (f"{number}.jsonl", GOOD)})
            assert answer.status_code == 201, answer.text
            path = f"/datasets/{answer.json()['id']}"
            assert client.get(f"{path}/content").content == GOOD
            client.delete(path).raise_for_status()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    with sessions.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Dataset)) == 0
        assert session.scalar(sa.select(sa.func.count()).select_from(Blob)) == 0
    assert blobs(home) == []


def test_datasets_are_listed_newest_first_a_page_at_a_time(client: TestClient) -> None:
    ids = [upload(client, GOOD * n)["id"] for n in (1, 2, 3)]
    page = client.get("/datasets?limit=2").json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    assert "report" not in page["data"][0]
    page = client.get(f"/datasets?limit=2&after={ids[1]}").json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([ids[0]], False)
    refused(client.get("/datasets?after=file-" + "0" * 24), 404, "not_found")


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
def test_a_file_s_name_names_no_file_of_the_server(client: TestClient, home: Path, given: str) -> None:
    dataset = upload(client, name=given)
    assert "/" not in dataset["filename"]
    assert len(dataset["filename"]) <= 255
    assert blobs(home) == [hashlib.sha256(GOOD).hexdigest()]
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
        (body((FILE, GOOD), end=""), "body"),
        (body((FILE, GOOD))[:-20], "body"),
        (body((FIELD, b"text")), "file"),
        (body((FILE, GOOD), (FILE, GOOD)), "file"),
        (body((FIELD, b"no format"), (FILE, GOOD)), "format"),
        (body((FIELD, b"text"), (FIELD, b"text"), (FILE, GOOD)), "format"),
        (body((FIELD, b"x" * 100_000), (FILE, GOOD)), "format"),
        (body(("Content-Disposition: form-data; name=columns", b"[" * 60_000), (FILE, GOOD)), "columns"),
        (body(("Content-Disposition: form-data; name=color", b"red"), (FILE, GOOD)), "color"),
        (body(("X: " + "y" * 100_000, b""), (FILE, GOOD)), "body"),
    ],
)
def test_what_is_no_such_form_is_refused_and_leaves_nothing(
    client: TestClient, home: Path, content: bytes, param: str
) -> None:
    answer = client.post("/datasets", content=content, headers={"content-type": "multipart/form-data; boundary=x"})
    assert refused(answer, 422, "invalid_parameter")["param"] == param
    assert not list((home / "incoming").iterdir())
    assert client.get("/datasets").json()["data"] == []


def test_another_kind_of_body_is_refused(client: TestClient) -> None:
    for kind in ("text/plain", "multipart/form-data", ""):
        answer = client.post("/datasets", content=GOOD, headers={"content-type": kind})
        assert refused(answer, 422, "invalid_parameter")["param"] == "Content-Type"


@pytest.fixture
def small(settings: ApiSettings, sessions: Sessions) -> Iterator[TestClient]:
    """Takes files of 100 kB."""
    with serve(settings.model_copy(update={"largest_dataset": 100_000})) as client:
        yield client


def test_a_file_that_is_too_large_is_refused_before_it_is_read(small: TestClient, home: Path) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": str(10 << 30)}
    refused(small.post("/datasets", content=b"", headers=headers), 413, "too_large")
    assert not (home / "incoming").exists()


def test_a_file_that_is_packed_to_burst_is_not_unpacked(small: TestClient) -> None:
    dataset = upload(small, gzip.compress(b"\n" * (30 << 20)), "bomb.jsonl.gz")
    assert dataset["bytes"] < 100_000
    assert dataset["status"] == "error"
    assert "unpacks to more than 100000 bytes" in dataset["status_details"]


def test_a_file_of_the_server_is_taken_where_it_is(client: TestClient, home: Path) -> None:
    answer = client.post("/datasets", json={"path": "rows.jsonl"})
    assert answer.status_code == 201, answer.text
    dataset = wait(client, answer.json()["id"])
    assert (dataset["status"], dataset["path"], dataset["sha256"], dataset["rows"]) == (
        "processed",
        "rows.jsonl",
        None,
        3,
    )
    assert client.get(f"/datasets/{dataset['id']}/content").content == (home / "datasets" / "rows.jsonl").read_bytes()
    job = client.post("/jobs", json={"model": "tiny", "dataset": dataset["id"]}).json()
    assert job["recipe"]["dataset"]["sha256"] == hashlib.sha256(GOOD * 3).hexdigest()


def test_no_link_and_no_path_leads_out_of_the_folders_that_are_allowed(client: TestClient, home: Path) -> None:
    (home / "secret.jsonl").write_bytes(GOOD)
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
        refused(client.post("/datasets", json={"path": path}), 422, "dataset_not_found")
    # One that is put in its place later leads nowhere either.
    (home / "datasets" / "honest.jsonl").write_bytes(GOOD)
    dataset = client.post("/datasets", json={"path": "honest.jsonl"}).json()
    wait(client, dataset["id"])
    (home / "datasets" / "honest.jsonl").unlink()
    (home / "datasets" / "honest.jsonl").symlink_to(home / "secret.jsonl")
    refused(client.get(f"/datasets/{dataset['id']}/content"), 422, "dataset_not_found")


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
def test_a_reference_that_makes_no_sense_is_refused(client: TestClient, reference: Any) -> None:
    refused(client.post("/datasets", json=reference), 422, "invalid_parameter")


def test_json_that_is_nested_a_hundred_thousand_deep_is_refused(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    refused(client.post("/datasets", content=b"[" * 100_000, headers=headers), 422, "invalid_parameter")


def test_a_dataset_of_another_is_not_there(locked: TestClient) -> None:
    anna, bob = (bearer(make(locked, owner=name)["secret"]) for name in ("anna", "bob"))
    answer = locked.post("/datasets", files={"file": ("a.jsonl", GOOD)}, headers=anna)
    dataset_id = answer.json()["id"]
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/content"),
        ("GET", "/report?model=tiny"),
        ("GET", "/preview?model=tiny"),
    ):
        answer = locked.request(method, f"/datasets/{dataset_id}{path}", headers=bob)
        assert refused(answer, 404, "not_found")["message"] == f"no dataset {dataset_id}"
    assert locked.get("/datasets", headers=bob).json()["data"] == []
    answer = locked.post("/jobs", json={"model": "tiny", "dataset": dataset_id}, headers=bob)
    assert f"no dataset {dataset_id}" in refused(answer, 422, "dataset_not_found")["message"]
    recipe = {"model": "tiny", "dataset": "rows.jsonl", "evaluation": {"dataset": dataset_id}}
    refused(locked.post("/jobs", json=recipe, headers=bob), 422, "dataset_not_found")
    assert locked.get(f"/datasets/{dataset_id}", headers=anna).status_code == 200
    assert [each["id"] for each in locked.get("/datasets", headers=bearer(ADMIN)).json()["data"]] == [dataset_id]


def test_bytes_beyond_the_quota_are_refused_and_not_kept(client: TestClient, sessions: Sessions, home: Path) -> None:
    with sessions.begin() as session:
        quotas.put(session, "default", quotas.Limits(None, None, 3 * len(GOOD)))
    upload(client, GOOD * 2)
    upload(client, GOOD * 2, "again.jsonl")  # the same content counts once
    refused(client.post("/datasets", files={"file": ("b.jsonl", GOOD * 3)}), 429, "quota_exceeded")
    assert blobs(home) == [hashlib.sha256(GOOD * 2).hexdigest()]


def test_two_uploads_at_once_are_counted_one_after_the_other(sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        quotas.put(session, "anna", quotas.Limits(None, None, 10))

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


def test_an_upload_that_is_sent_again_makes_one_dataset(client: TestClient) -> None:
    headers = {"idempotency-key": "once"}
    first, second = (
        client.post("/datasets", files={"file": ("a.jsonl", GOOD)}, headers=headers).json()["id"] for _ in range(2)
    )
    assert first == second
    answer = client.post("/datasets", files={"file": ("a.jsonl", GOOD * 2)}, headers=headers)
    refused(answer, 422, "idempotency_key_reused")


def test_what_was_left_unchecked_is_checked_by_the_next_process(
    settings: ApiSettings, sessions: Sessions, home: Path
) -> None:
    (home / "blobs" / "ab").mkdir(parents=True)
    (home / "blobs" / "ab" / ("ab" * 32)).write_bytes(GOOD)
    with sessions.begin() as session:
        source = datasets.Source(len(GOOD), sha256="ab" * 32)
        dataset_id = datasets.create(session, "default", "rows.jsonl", source).id
    with serve(settings) as client:
        assert wait(client, dataset_id)["status"] == "processed"


def test_a_dataset_whose_bytes_are_gone_is_told(client: TestClient, home: Path) -> None:
    dataset = upload(client)
    for path in (home / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    answer = client.get(f"/datasets/{dataset['id']}/preview?model=tiny")
    assert "no longer in the storage" in refused(answer, 422, "dataset_not_found")["message"]
    refused(client.get(f"/datasets/{dataset['id']}/content"), 422, "dataset_not_found")


def test_a_full_disk_is_told(client: TestClient, home: Path) -> None:
    """It mounts a small one, as root."""
    incoming = home / "incoming"
    incoming.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(incoming)], check=True)
    try:
        refused(client.post("/datasets", files={"file": ("a.jsonl", GOOD * 5000)}), 507, "storage_full")
    finally:
        subprocess.run(["umount", str(incoming)], check=True)
