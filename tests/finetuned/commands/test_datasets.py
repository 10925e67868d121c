from pathlib import Path
from typing import Any

import pytest

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi

REPORT: dict[str, Any] = {
    "format": "messages",
    "rows": 3,
    "examples": 2,
    "duplicates": 1,
    "errors": [],
    "error_count": 0,
    "unused_fields": {},
}


def dataset(status: str = "processed", **more: Any) -> dict[str, Any]:
    return {
        "id": "file-1",
        "filename": "rows.jsonl",
        "owner": "anna",
        "status": status,
        "status_details": None,
        "rows": 3,
        "bytes": 1000,
        "format": "messages",
        "created_at": "2026-01-02T03:04:05Z",
        "report": REPORT,
        **more,
    }


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("the rows")
    return tmp_path / "rows.jsonl"


def test_add_uploads_checks_and_prints_the_id(api: FakeApi, rows: Path) -> None:
    report = {**REPORT, "unused_fields": {"id": 3, "messages[].lang": 1}}
    api.answers = {
        "POST /datasets": (201, dataset("uploaded", report=None)),
        "GET /datasets/file-1": (200, dataset(report=report)),
    }
    done = finetuned("datasets", "add", str(rows), "--column", "prompt=the question", "--url", api.url)
    assert (done.returncode, done.stdout) == (0, "file-1\n"), done.stderr
    assert "3 rows of messages, 2 examples, 1 of them duplicates" in done.stderr
    assert "unused fields: id (3 rows), messages[].lang (1 row)" in " ".join(done.stderr.split())
    (body,) = api.bodies
    assert b'filename="rows.jsonl"' in body
    assert b"the rows" in body
    assert b'{"prompt": "the question"}' in body


def test_add_reports_columns_and_advises_its_options(api: FakeApi, rows: Path) -> None:
    messages = [
        'say which is which, as dataset.columns {"instruction": "the question", "output": "answer"}',
        'say so: dataset.format "messages" and dataset.columns {"messages": "conversations"}',
        "no output in a, b; dataset.columns can say which column it is",
    ]
    errors = [{"row": None, "message": message} for message in messages]
    report = {**REPORT, "columns": {"output": "response"}, "errors": errors, "error_count": len(errors)}
    api.answers = {
        "POST /datasets": (201, dataset("error")),
        "GET /datasets/file-1": (200, dataset("error", report=report)),
    }
    done = finetuned("datasets", "add", str(rows), "--url", api.url)
    assert done.stderr.splitlines()[1:] == [
        "read response as output",
        "say which is which, as --column 'instruction=the question' --column output=answer",
        "say so: --format messages and --column messages=conversations",
        "no output in a, b; --column can say which column it is",
    ]


def test_add_of_a_faulty_file_names_its_rows(api: FakeApi, rows: Path) -> None:
    errors = [{"row": row, "message": "is not JSON\x1b[2J"} for row in range(1, 101)]
    report = {**REPORT, "errors": errors, "error_count": 250}
    api.answers = {
        "POST /datasets": (201, dataset("error")),
        "GET /datasets/file-1": (200, dataset("error", report=report)),
    }
    done = finetuned("datasets", "add", str(rows), "--url", api.url)
    assert (done.returncode, done.stdout) == (1, "file-1\n")
    reported = done.stderr.splitlines()
    assert reported[1].startswith("row 1: is not JSON")
    assert len(reported) == 12
    assert "and 240 more" in reported[-1]
    assert "\x1b" not in done.stderr


def test_missing_column_or_file_is_reported(api: FakeApi, rows: Path) -> None:
    done = finetuned("datasets", "add", str(rows), "--column", "prompt", "--url", api.url)
    assert (done.returncode, done.stderr) == (1, "--column: got prompt; give FIELD=NAME, such as prompt=question\n")
    done = finetuned("datasets", "add", str(rows), "--column", "prompt=a", "--column", "prompt=b", "--url", api.url)
    assert (done.returncode, done.stderr) == (1, "--column: got prompt=a and prompt=b; give a field one column\n")
    done = finetuned("datasets", "add", "none.jsonl", "--url", api.url)
    assert done.returncode == 1
    assert "none.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


def test_datasets_are_listed(api: FakeApi) -> None:
    api.answers["GET /datasets"] = (200, {"data": [dataset()], "has_more": False})
    done = finetuned("datasets", "--url", api.url, COLUMNS="200")
    assert done.stdout.splitlines()[1].split()[:5] == ["file-1", "rows.jsonl", "anna", "processed", "3"]
    api.answers["GET /datasets"] = (200, {"data": [], "has_more": False})
    assert "finetuned datasets add FILE" in finetuned("datasets", "--url", api.url).stderr


def test_preview_marks_learned_and_cut_text(api: FakeApi) -> None:
    tokens = [
        {"id": 1, "text": "ask \x1b", "supervised": False},
        {"id": 2, "text": "answer", "supervised": True},
        {"id": 3, "text": "too long", "supervised": True},
    ]
    text = {"text": "", "length": 5, "supervised": 2, "kept": 2, "tokens": tokens}
    good = {"row": 1, "texts": [text], "truncated": True, "dropped": False, "problem": None}
    bad = {"row": 2, "texts": [], "truncated": False, "dropped": False, "problem": "is not JSON"}
    api.answers["GET /datasets/file-1/preview"] = (200, {"data": [good, bad], "has_more": False})
    done = finetuned("datasets", "preview", "file-1", "--model", "tiny", "--url", api.url, FORCE_COLOR="1")
    assert done.returncode == 0, done.stderr
    assert "row 1: 5 tokens, 2 learned; cut" in done.stdout
    assert "\x1b[1;32manswer" in done.stdout
    assert "\ufffd" in done.stdout
    assert "and 2 more tokens" in done.stdout
    assert "row 2: is not JSON" in done.stdout


def test_preview_names_the_answers_of_a_pair(api: FakeApi) -> None:
    tokens = [{"id": 2, "text": "Yes.", "supervised": True}]
    text = {"text": "", "length": 1, "supervised": 1, "kept": 1, "tokens": tokens}
    texts = [{**text, "answer": answer} for answer in ("chosen", "rejected")]
    pair = {"row": 1, "texts": texts, "truncated": False, "dropped": True, "problem": None, "desirable": None}
    rated = {**pair, "row": 2, "texts": [{**text, "answer": None}], "dropped": False, "desirable": False}
    api.answers["GET /datasets/file-1/preview"] = (200, {"data": [pair, rated], "has_more": False})
    done = finetuned("datasets", "preview", "file-1", "--model", "tiny", "--method", "dpo", "--url", api.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:3] == ["chosen: Yes.", "rejected: Yes."]
    assert "left out: one answer does not begin" in done.stdout
    assert "row 2: 1 tokens, 1 learned; rated as bad" in done.stdout


def test_pairs_and_ratings_are_reported(api: FakeApi) -> None:
    pairs = {**REPORT, "learned": "pairs", "identical_pairs": 2}
    ratings = {**REPORT, "learned": "ratings", "desirable": 3, "undesirable": 1}
    for report, words in ((pairs, "2 of them identical"), (ratings, "3 answers rated as good, 1 as bad")):
        api.answers["GET /datasets/file-1"] = (200, dataset(report=report))
        assert words in finetuned("datasets", "show", "file-1", "--url", api.url).stdout


def test_dataset_is_deleted_or_the_refusal_shown(api: FakeApi) -> None:
    api.answers["DELETE /datasets/file-1"] = (200, {"id": "file-1", "deleted": True})
    assert finetuned("datasets", "delete", "file-1", "--url", api.url).returncode == 0
    error = {"error": {"code": "dataset_in_use", "message": "job job_1 needs dataset file-1"}}
    api.answers["DELETE /datasets/file-1"] = (409, error)
    done = finetuned("datasets", "delete", "file-1", "--url", api.url)
    assert (done.returncode, done.stderr) == (1, "job job_1 needs dataset file-1\n")
