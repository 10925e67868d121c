"""Answers in OpenAI's words, from an inference server that needs no model."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from pydantic import BaseModel

from contract.failure import Failure, FailureCode
from contract.inference import Alive, Call, Done, Piece, PromptTokens, Refusal, ScoredToken, ServerSpec
from store.models import InferenceServer
from store.scheduling import inference
from store.session import Sessions
from tests.api.http.leaving_client import leave
from tests.support.inference_server import FakeInferenceServer, inference_server
from tests.support.jobs import register

QUESTION: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "Hi?"}]}


@pytest.fixture
def server(sessions: Sessions) -> Iterator[FakeInferenceServer]:
    with inference_server() as server:
        with sessions.begin() as session:
            register(session)
            server.add(session, "worker")
        yield server


def chat(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/chat/completions", json={**QUESTION, **fields})


def chunks(client: TestClient, path: str = "/v1/chat/completions", **body: Any) -> list[Any]:
    """The data of a stream, without its end."""
    text = client.post(path, json={**body, "stream": True}).text
    *found, end = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert end == "[DONE]"
    return [json.loads(each) for each in found]


def test_fields_reach_the_server_as_they_are_meant(client: TestClient, server: FakeInferenceServer) -> None:
    fields = {"temperature": 0, "top_p": 0.5, "max_completion_tokens": 9, "stop": "x", "seed": 3, "n": 1}
    chat(client, **fields, logprobs=True, top_logprobs=2, chat_template_kwargs={"enable_thinking": False})
    (sent,) = server.requests
    assert (sent.adapter, sent.messages, sent.n) == (None, QUESTION["messages"], 1)
    assert sent.template_arguments == {"enable_thinking": False}
    sampling = sent.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0, 0.5, 9)
    assert (sampling.stop, sampling.seed, sampling.logprobs) == (["x"], 3, 2)


def test_answer_is_whole_or_comes_in_chunks(client: TestClient, server: FakeInferenceServer) -> None:
    whole = chat(client).json()
    assert whole["choices"][0]["message"]["content"] == "Hello."
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    found = chunks(client, **QUESTION, stream_options={"include_usage": True})
    assert "".join(each["choices"][0]["delta"]["content"] or "" for each in found[:-1]) == "Hello."
    assert found[-1]["usage"]["total_tokens"] == 6
    found = chunks(client, "/v1/completions", model="tiny", prompt="Hi")
    assert [each["choices"][0]["text"] for each in found] == ["Hel", "lo."]


def test_calls_of_tools_have_their_arguments_as_text(client: TestClient, server: FakeInferenceServer) -> None:
    calls = [Call(name="look", arguments={"at": "中"})]
    server.lines = [PromptTokens(tokens=1), Piece(index=0, calls=calls, finish="tool_calls"), Done(tokens=5)]
    (choice,) = chat(client, tools=[{"type": "function", "function": {"name": "look"}}]).json()["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    (call,) = choice["message"]["tool_calls"]
    assert (call["type"], call["function"]) == ("function", {"name": "look", "arguments": '{"at": "中"}'})


def test_logprobs_have_the_bytes_of_whole_letters(client: TestClient, server: FakeInferenceServer) -> None:
    tokens = [ScoredToken(text=text, logprob=-1, top=[(text, -1.0)]) for text in ("é", "�")]
    piece = Piece(index=0, text="é", tokens=tokens, finish="length")
    server.lines = [PromptTokens(tokens=1), piece, Done(tokens=2)]
    (choice,) = chat(client, logprobs=True, top_logprobs=1).json()["choices"]
    assert [each["bytes"] for each in choice["logprobs"]["content"]] == [[195, 169], None]
    (choice,) = client.post("/v1/completions", json={"model": "tiny", "prompt": "a", "logprobs": 1}).json()["choices"]
    assert choice["logprobs"]["text_offset"] == [0, 1]


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (Refusal(code="overloaded", message="full", retry=True), 503, "overloaded"),
        (Refusal(code="context_length_exceeded", message="long", param="messages"), 400, "context_length_exceeded"),
        (Refusal(code="recipe_invalid", message="messages[0]: no", param="messages"), 400, "invalid_parameter"),
    ],
)
def test_refusal_of_the_server_has_its_own_status(
    client: TestClient, server: FakeInferenceServer, refusal: Refusal, status: int, code: str
) -> None:
    server.lines = [refusal]
    answer = chat(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert client.get("/audit").json()["data"] == []


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x1e"])
def test_separators_of_unicode_are_text(client: TestClient, server: FakeInferenceServer, separator: str) -> None:
    text = f"one{separator}two"
    server.lines = [PromptTokens(tokens=1), Piece(index=0, text=text, finish="stop"), Done(tokens=2)]
    assert chat(client).json()["choices"][0]["message"]["content"] == text


def test_line_that_cannot_be_read_cuts_off(client: TestClient, server: FakeInferenceServer) -> None:
    for begun in ([], [PromptTokens(tokens=1)]):
        server.lines = [*begun, ServerSpec.model_construct()]
        answer = chat(client)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")


def test_alive_server_keeps_a_stream_open(client: TestClient, server: FakeInferenceServer) -> None:
    server.lines = [Alive(), PromptTokens(tokens=1), Alive(), Piece(index=0, text="Hi", finish="stop"), Done(tokens=2)]
    assert chat(client).json()["choices"][0]["message"]["content"] == "Hi"
    assert "\n\n: alive\n\ndata: " in chat(client, stream=True).text


def test_client_that_leaves_ends_its_request(client: TestClient, server: FakeInferenceServer) -> None:
    for before in ([Alive()], [PromptTokens(tokens=1), Alive()]):
        server.lines = before
        assert leave(client, "/v1/chat/completions", json.dumps(QUESTION).encode()) == [400]


def test_answer_under_way_counts_as_use(
    client: TestClient, server: FakeInferenceServer, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.inference._SECONDS_BETWEEN_RENEWALS", 0)

    def lines() -> Iterator[BaseModel]:
        yield PromptTokens(tokens=1)
        with sessions.begin() as session:
            session.execute(sa.update(InferenceServer).values(used_at=sa.func.now() - timedelta(hours=1)))
        yield from [Piece(index=0, text="Hi"), Piece(index=0, text=".", finish="stop"), Done(tokens=2)]

    server.lines = lines()
    assert chat(client).status_code == 200
    recent = InferenceServer.used_at > sa.func.now() - timedelta(minutes=1)
    with sessions.begin() as session:
        assert session.scalars(sa.select(InferenceServer).where(recent)).one()


def test_answer_that_is_cut_off_is_an_error(client: TestClient, server: FakeInferenceServer) -> None:
    server.lines = [PromptTokens(tokens=1), Piece(index=0, text="Hel")]
    answer = chat(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
    lines = [line for line in chat(client, stream=True).text.splitlines() if line]
    assert "cut off" in json.loads(lines[-1].removeprefix("data: "))["error"]["message"]


def test_model_that_cannot_be_loaded_says_why(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        register(session)
        server_id = inference.want(session, "tiny").id
        inference.place(session)
        inference.end(session, server_id, Failure(code=FailureCode.MODEL_UNSUPPORTED, message="model: no"))
    answer = chat(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_unsupported")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"user": "me"}, "user"),
        ({"n": 17}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 2, "max_completion_tokens": 3}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": False, "stream_options": {}}, "stream_options"),
    ],
)
def test_field_that_is_not_supported_is_refused(client: TestClient, fields: dict[str, Any], param: str) -> None:
    answer = chat(client, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
