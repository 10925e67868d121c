"""What a refusal says: the field, what was given and what would do, in words; no pattern, and nothing of pydantic's."""

import json
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel, ValidationError

from api.datasets.schemas import AboutDataset, DatasetReference
from api.evaluations.schemas import EvaluationIn
from api.exports import ExportIn
from api.keys import NewKey
from api.metrics import NAMES
from api.openai.answer_requests import ChatCompletionRequest, CompletionRequest
from api.openai.mapping import FineTuningJobRequest
from api.quotas import LimitsIn
from api.webhooks.schemas import NewWebhook, WebhookChange
from contract.field_errors import describe_errors
from contract.patterns import DESCRIPTIONS
from contract.recipe import Recipe

BODIES = [
    Recipe,
    FineTuningJobRequest,
    AboutDataset,
    DatasetReference,
    NewKey,
    LimitsIn,
    NewWebhook,
    WebhookChange,
    ExportIn,
    EvaluationIn,
    ChatCompletionRequest,
    CompletionRequest,
]
WRONG = [0, -1, 2**70, 1.5, True, "", "#\0 ä/../", "x" * 5000, [], [1], ["#\0"], {}, {"#\0": "#\0"}, {"q": 0}, None]
INTERNALS = [
    "[A-Z",
    "[a-z",
    "[^",
    "\\x",
    "{1,",
    "literal[",
    "constrained",
    "function-",
    "<",
    "should match pattern",
    "instance of",
]


def fields(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*path, name)
        annotation = field.annotation
        union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
        for branch in typing.get_args(annotation) if union else (annotation,):
            if isinstance(branch, type) and issubclass(branch, BaseModel):
                yield from fields(branch, (*path, name))


@pytest.mark.parametrize("model", BODIES)
def test_each_body_field_is_refused_in_words(model: type[BaseModel]) -> None:
    for path in fields(model):
        for value in WRONG:
            body: Any = value
            for name in reversed(path):
                body = {name: body}
            try:
                model.model_validate_json(json.dumps(body))
            except ValidationError as error:
                found = describe_errors(model, error.errors(include_url=False))
            else:
                continue
            for param, message in found.items():
                assert not [word for word in INTERNALS if word in message.replace("layers\\.[01]", "")], message
                known = param == "" or tuple(param.split(".")) in fields(model)
                assert known or "unknown field" in message, param


def patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from (value for name, value in schema.items() if name == "pattern" and isinstance(value, str))
        for value in schema.values():
            yield from patterns(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from patterns(value)


def test_every_pattern_of_the_api_has_its_words(client: TestClient) -> None:
    found = set(patterns(client.get("/openapi.json").json()))
    assert len(found) > 8
    assert found - {NAMES} <= set(DESCRIPTIONS)  # api.metrics has words of its own for the names of columns


@pytest.mark.parametrize(
    ("more", "param", "words"),
    [
        (
            {"hyperparameters": {"n_epochs": 0}},
            "hyperparameters.n_epochs",
            'got 0; use a whole number from 1 to 1000, or "auto"',
        ),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"batch_size": "many"}}}},
            "method.supervised.hyperparameters.batch_size",
            'got "many"; use a whole number from 1 to 1000000, or "auto"',
        ),
        (
            {"hyperparameters": {"learning_rate_multiplier": -1}},
            "hyperparameters.learning_rate_multiplier",
            'use a number above 0 and up to 10000, or "auto"',
        ),
        ({"suffix": "my model"}, "suffix", 'got "my model"; use 1 to 64 letters (a to z), digits, or any of . _ -'),
        ({"metadata": {"team": "a\0b"}}, "metadata", "use text without NUL characters"),
        ({"colour": "red"}, "colour", "unknown field; known here: hyperparameters,"),
    ],
)
def test_openai_request_is_refused_by_field_in_words(
    client: TestClient, more: dict[str, Any], param: str, words: str
) -> None:
    answer = client.post("/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": "rows.jsonl", **more})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert words in error["message"]


def test_parameter_is_refused_in_words(client: TestClient) -> None:
    for path in ("/v1/files?purpose=a%20b", "/jobs?limit=0", "/jobs?limit=x", "/jobs?owner=a%20b", "/quotas/a%20b"):
        error = client.get(path).json()["error"]
        assert error["message"].startswith(f"{error['param']}: got "), error
        assert not [word for word in INTERNALS if word in error["message"]], error


@pytest.mark.parametrize("route", ["/jobs", "/plans", "/datasets", "/v1/fine_tuning/jobs", "/webhooks"])
def test_field_given_twice_is_refused_by_its_path(client: TestClient, route: str) -> None:
    bodies = {
        "/datasets": '{"path": "rows.jsonl", "path": "other.jsonl"}',
        "/v1/fine_tuning/jobs": '{"model": "tiny", "training_file": "rows.jsonl", "seed": 1, "seed": 2}',
        "/webhooks": '{"url": "https://example.com/a", "url": "https://example.com/b"}',
    }
    body = bodies.get(route, '{"model": "tiny", "dataset": "rows.jsonl", "adapter": {"r": 8, "r": 16}}')
    answer = client.post(route, content=body, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    param = {"/datasets": "path", "/v1/fine_tuning/jobs": "seed", "/webhooks": "url"}.get(route, "adapter.r")
    assert (answer.status_code, error["param"]) == (400 if route.startswith("/v1/") else 422, param)
    assert error["message"] == f"{param}: given more than once in one object; give it once"
