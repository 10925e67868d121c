"""Files by OpenAI's wire."""

import json

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from tests.support.files import ROW

ROWS = (json.dumps(ROW) + "\n").encode() * 3


def upload(client: TestClient, **fields: str) -> str:
    answer = client.post("/v1/files", files={"file": ("a.jsonl", ROWS)}, data={"purpose": "fine-tune", **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize(("content", "param"), [(b"no form", "body"), (b"--x\r\n", "body"), (b"--x--\r\n", "file")])
def test_invalid_file_form_is_a_bad_request(client: TestClient, content: bytes, param: str) -> None:
    answer = client.post("/v1/files", content=content, headers={"content-type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_expired_file_is_deleted_once_unused(client: TestClient, engine: sa.Engine) -> None:
    expiring, kept = upload(client, expires_after_seconds="3600"), upload(client)
    requested = {"model": "tiny", "training_file": expiring}
    job_id = client.post("/v1/fine_tuning/jobs", json=requested).json()["id"]
    with engine.begin() as connection:
        over = "UPDATE datasets SET expires_at = now() - interval '1 s' WHERE expires_at IS NOT NULL"
        connection.execute(sa.text(over))
    checks = client.app_state["services"].checks
    checks.round()
    assert client.get(f"/v1/files/{expiring}").status_code == 200
    client.post(f"/jobs/{job_id}/cancel").raise_for_status()
    checks.round()
    assert client.get(f"/v1/files/{expiring}").status_code == 404
    assert client.get(f"/v1/files/{kept}/content").content == ROWS


def test_results_of_other_owners_are_not_found(client: TestClient) -> None:
    requested = {"model": "tiny", "training_file": "rows.jsonl"}
    job_id = client.post("/v1/fine_tuning/jobs", json=requested).json()["id"]
    for file_id in (f"file-{job_id}", "file-job_" + "0" * 24, "file-" + "0" * 24, "nonsense", "%00"):
        assert client.get(f"/v1/files/{file_id}").status_code == 404
        assert client.get(f"/v1/files/{file_id}/content").status_code == 404
        assert client.delete(f"/v1/files/{file_id}").status_code == 404
    assert client.get("/v1/files", params={"after": "nonsense"}).status_code == 404


def test_file_ranges_and_etags_work(client: TestClient) -> None:
    file_id = upload(client)
    for path in (f"/v1/files/{file_id}/content", f"/datasets/{file_id}/content"):
        part = client.get(path, headers={"range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, ROWS[5:10])
        assert part.headers["content-range"] == f"bytes 5-9/{len(ROWS)}"
        whole = client.get(path)
        assert (whole.status_code, whole.content) == (200, ROWS)
        assert client.get(path, headers={"if-none-match": whole.headers["etag"]}).status_code == 304


def test_preference_rows_are_for_a_method_that_compares(client: TestClient) -> None:
    question = [{"role": "user", "content": "hi"}]
    good, bad = ([{"role": "assistant", "content": content}] for content in ("hello", "go away"))
    row = {
        "input": {"messages": question, "tools": [], "parallel_tool_calls": True},
        "preferred_output": good,
        "non_preferred_output": bad,
    }
    lines = [json.dumps(row), json.dumps(row | {"non_preferred_output": []})]
    files = []
    for content in (lines[0], "\n".join(lines)):
        form = {"file": ("pairs.jsonl", content.encode())}
        files.append(client.post("/v1/files", files=form, data={"purpose": "fine-tune"}).json())
    assert [file["status"] for file in files] == ["processed", "error"]
    assert files[1]["status_details"].startswith("row 2: has no answer: rejected is empty; rejected is the column non_")
    requested = {"model": "tiny", "training_file": files[0]["id"]}
    error = client.post("/v1/fine_tuning/jobs", json=requested).json()["error"]
    assert error["param"] == "dataset"
    assert "has pairs of answers" in error["message"]
    assert 'set method to "dpo"' in error["message"]
    compared = {**requested, "recipe": {"method": "dpo"}}
    assert client.post("/v1/fine_tuning/jobs", json=compared).status_code == 200
