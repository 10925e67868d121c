"""What a list reads is bounded, however many jobs there are."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from openai import OpenAI

from api.app import create_app
from api.settings import ApiSettings
from tests.support import many_jobs
from tests.support.database import empty_database

pytestmark = pytest.mark.timeout(120)

MOST_ROWS = 2_100
MOST_BYTES = 500_000
"""Of an answer, and of what the database sends for it."""


@pytest.fixture(scope="module")
def full(engine: sa.Engine) -> Iterator[None]:
    empty_database(engine)
    many_jobs.fill(engine, 10_000)
    yield
    empty_database(engine)


@pytest.fixture
def client(settings: ApiSettings, full: None) -> Iterator[TestClient]:
    with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
        yield client


class Reads:
    """Rows and bytes that the database sends."""

    def __init__(self) -> None:
        self.rows = self.bytes = 0

    def count(self, _connection: Any, cursor: Any, *_: Any) -> None:
        result = cursor.pgresult
        if result is not None:
            self.rows += result.ntuples
            values = (
                result.get_value(row, column) for row in range(result.ntuples) for column in range(result.nfields)
            )
            self.bytes += sum(len(value) for value in values if value is not None)


@pytest.fixture
def reads() -> Iterator[Reads]:
    reads = Reads()
    sa.event.listen(sa.Engine, "after_cursor_execute", reads.count)
    yield reads
    sa.event.remove(sa.Engine, "after_cursor_execute", reads.count)


def test_no_list_reads_more_than_a_page(client: TestClient, reads: Reads) -> None:
    found = many_jobs.lists(client.get("/openapi.json").json())
    assert {"/jobs", "/v1/models", "/v1/files", "/audit", "/sweeps", "/workers"} <= set(found)
    for path in found:
        reads.rows = reads.bytes = 0
        answer = client.get(path, headers={"accept": "application/json"})
        assert answer.status_code == 200, (path, answer.text)
        assert reads.rows <= MOST_ROWS, path
        assert max(reads.bytes, len(answer.content)) <= MOST_BYTES, path


def test_every_model_is_paged_and_retrieved(client: TestClient) -> None:
    sdk = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none", http_client=client)
    names: list[str] = []
    page = sdk.models.list()
    while True:
        names += [model.id for model in page.data]
        if not page.has_more:  # type: ignore[attr-defined]
            break
        page = sdk.models.list(extra_query={"after": names[-1]})
    assert names[0] == "tiny"
    assert len(set(names)) == len(names) == 10_001
    assert names[1].endswith("1".rjust(24, "0"))
    assert sdk.models.retrieve(names[-1]).id == names[-1]
    assert len(sdk.models.list(extra_query={"limit": 3}).data) == 4


@pytest.mark.parametrize("after", ["tiny", "nothing", "ft:base:default::" + "f" * 24])
def test_models_after_none_of_them_are_refused(client: TestClient, after: str) -> None:
    assert client.get("/v1/models", params={"after": after}).status_code == 404
