"""The operations of the API's description are the methods of a generated client."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from api.app import create_app
from api.settings import ApiSettings
from tests.support.settings import SECRET_KEY

VERBS = "cancel|clean|create|delete|download|get|list|pause|ping|preview|resume|retry|revoke|set|update"


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    database = SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")
    broker = SecretStr("redis://127.0.0.1:1")
    settings = ApiSettings(database_url=database, broker_url=broker, home=Path("/none"), secret_key=SECRET_KEY)
    return create_app(settings).openapi()


@pytest.fixture(scope="module")
def operations(description: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in description["paths"].values() for operation in methods.values()]


def test_operation_ids_are_unique_verbs_with_nouns(operations: list[dict[str, Any]]) -> None:
    ids = [operation["operationId"] for operation in operations]
    assert len({*ids}) == len(ids)
    assert [each for each in ids if not re.fullmatch(rf"({VERBS})(_[a-z]+)+", each)] == []


def test_every_operation_has_one_described_tag(description: dict[str, Any], operations: list[dict[str, Any]]) -> None:
    described = {tag["name"]: tag["description"] for tag in description["tags"]}
    tags = [operation.get("tags", []) for operation in operations]
    assert all(len(each) == 1 for each in tags)
    assert {tag for each in tags for tag in each} == {*described}
    assert all(text.endswith(".") for text in described.values())
