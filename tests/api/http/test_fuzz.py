"""Whatever is sent, the API answers in its own words: never with a 500."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.timeout(120)

gently = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

_TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=300)
_ID = _TEXT | st.just("job_" + "0" * 24)
_PATH = st.sampled_from(["", "/metrics", "/events", "/artifacts", "/artifacts/", "/cancel", "/pause", "/none"])
_QUERY = st.dictionaries(
    st.sampled_from(["limit", "after", "since_step", "points", "columns", "from_step"]),
    _TEXT | st.integers().map(str),
    max_size=3,
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_FIELDS = st.dictionaries(
    st.sampled_from(["model", "dataset", "name", "adapter", "batch", "schedule", "seed", "precision"]), _JSON | _TEXT
)


def spoken(answer: Any) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        error = answer.json()["error"]
        assert set(error) == {"code", "message", "param", "type"}
        assert len(answer.content) < 10_000


@gently
@given(_ID, _PATH, _TEXT, _QUERY)
@example("\0", "", "", {})
@example("job_" + "0" * 24, "/artifacts/", "\0", {})
def test_any_get_is_answered_in_form(
    client: TestClient, job_id: str, path: str, rest: str, query: dict[str, str]
) -> None:
    spoken(client.get(f"/jobs/{quote(job_id, safe='')}{path}{quote(rest, safe='')}", params=query))
    spoken(client.get("/jobs", params=query))


@gently
@given(_ID, st.sampled_from(["cancel", "pause", "resume", "retry"]), _TEXT, _TEXT)
@example("job_" + "0" * 24, "cancel", "", "true")
def test_any_requested_action(client: TestClient, job_id: str, what: str, body: str, force: str) -> None:
    path = f"/jobs/{quote(job_id, safe='')}/{what}"
    spoken(client.post(path, content=body.encode(), params={"force": force}))


@gently
@given(st.binary() | _JSON.map(lambda value: json.dumps(value).encode()) | _FIELDS.map(json.dumps).map(str.encode))
@example(b'{"model": "tiny", "dataset": "rows.jsonl", "name": "\\u0000"}')
@example(b'{"model": "tiny", "dataset": "rows.jsonl", "adapter": {"alpha": 1e400}}')
@example(b'{"model": "tiny", "dataset": "rows.jsonl", "adapter": {"alpha": 1' + b"0" * 308 + b"}}")
@example(b'{"model": "tiny", "dataset": "\\u0000"}')
@example(b'{"model": "/proc/self/mem/x", "dataset": "/dev/zero"}')
@example(b'{"model": "tiny/config.json", "dataset": "rows.jsonl/x"}')
def test_any_post_is_answered_in_form(client: TestClient, body: bytes) -> None:
    spoken(client.post("/jobs", content=body))


@gently
@given(st.dictionaries(st.sampled_from(["model", "dataset"]), _TEXT))
def test_any_file_name_is_answered_in_form(client: TestClient, names: dict[str, str]) -> None:
    spoken(client.post("/jobs", json={"model": "tiny", "dataset": "rows.jsonl", **names}))


@gently
@given(st.binary(max_size=50) | _TEXT.map(str.encode))
def test_any_header_is_answered_in_form(client: TestClient, value: bytes) -> None:
    # What a server lets through: h11 refuses control characters itself.
    value = bytes(byte for byte in value if byte >= 32 and byte != 127).strip()
    names = (b"last-event-id", b"x-request-id", b"x-owner", b"origin", b"host", b"sec-fetch-site")
    headers = [(name, value) for name in names]
    spoken(client.get("/jobs/job_" + "0" * 24 + "/events", headers=headers))
    spoken(client.post("/jobs", content=b"{}", headers=headers))
