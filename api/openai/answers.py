"""Answers of models: found, passed on to their server, and given back whole or as a stream."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from api import inference
from api.context import Services
from api.inference import CutOff, InferenceUnavailable
from api.openai import models
from api.openai.answer_requests import ChatCompletionRequest, CompletionRequest
from api.openai.answer_wire import ChatWire, CompletionWire, Wire, usage_of
from api.openai.model_names import read_name
from contract.inference import Alive, AnswerRequest, Done, Line, Piece, PromptTokens
from storage import folder_cache
from storage.backends import FolderStorage
from store import artifacts
from store.access import audit
from store.access.principal import Principal
from store.earlier_adapter import folder_of
from store.errors import ModelNotFound
from store.models import Artifact


class _Body(Protocol):
    model: str

    def to_server(self, adapter: str | None) -> AnswerRequest: ...


async def chat(services: Services, who: Principal, http: Request, body: ChatCompletionRequest) -> Response:
    return await _answer(services, who, http, body, ChatWire(body.model), bool(body.stream), body.with_usage)


async def complete(services: Services, who: Principal, http: Request, body: CompletionRequest) -> Response:
    return await _answer(services, who, http, body, CompletionWire(body.model), bool(body.stream), body.with_usage)


async def _answer(  # parameters: the request's
    services: Services, who: Principal, http: Request, body: _Body, wire: Wire, stream: bool, with_usage: bool
) -> Response:
    """Raises ModelNotFound, InvalidParameter, InputError, StorageUnavailable and what `inference.answer` raises."""
    target, base, adapter = await run_in_threadpool(_find, services, who, body.model)
    request = body.to_server(str(adapter) if adapter else None)
    lines = inference.answer(services.sessions, base, request)
    prompt = await _prompt(http, lines)
    await run_in_threadpool(_record, services, who, target, body.model)
    if stream:
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        sent = _stream(lines, prompt.tokens, request.n, wire, with_usage)
        return StreamingResponse(sent, media_type="text/event-stream", headers=headers)
    whole = await _whole(http, lines, prompt.tokens, request.n, wire)
    return Response(whole.model_dump_json(), media_type="application/json")


def _record(services: Services, who: Principal, target: str, name: str) -> None:
    with services.sessions.begin() as session:
        audit.record(session, who, "model.answer", target, model=name)


def _find(services: Services, who: Principal, name: str) -> tuple[str, str, Path | None]:
    """The base model or the job that answers, the base model, and the folder of the adapter. Raises ModelNotFound,
    StorageUnavailable."""
    fine_tuned = read_name(name)
    if fine_tuned is None:
        models.get(services, who, name)
        return name, name, None
    with services.sessions.begin() as session:
        job, artifact = models.find_adapter(session, who, name, fine_tuned)
        target, base = job.id, str(job.recipe["model"])
    return target, base, _folder(services, name, artifact)


def _folder(services: Services, name: str, artifact: Artifact) -> Path:
    cache = services.settings.fetched_adapters
    fetched = cache / artifacts.key(artifact)
    if folder_cache.use(fetched):
        return fetched
    home = FolderStorage(services.settings.home)
    try:
        with folder_cache.adding(cache, fetched) as beside:
            folder = folder_of(artifact, home, services.storage, beside)
    except FileNotFoundError as error:
        raise ModelNotFound(name) from error
    return fetched if folder == beside else folder


async def _prompt(http: Request, lines: AsyncGenerator[Line, None]) -> PromptTokens:
    """The first line. A refusal comes before it, and is answered with a status of its own."""
    try:
        async for line in lines:
            if isinstance(line, PromptTokens):
                return line
            if await http.is_disconnected():
                await lines.aclose()
                raise ClientDisconnect
    except CutOff as error:
        raise InferenceUnavailable(str(error)) from error
    raise AssertionError("the first line but for Alive is a PromptTokens")


async def _whole(http: Request, lines: AsyncGenerator[Line, None], prompt: int, n: int, wire: Wire) -> BaseModel:
    pieces = []
    try:
        async with aclosing(lines):
            async for line in lines:
                if await http.is_disconnected():
                    raise ClientDisconnect
                if isinstance(line, Piece):
                    pieces.append(line)
                elif isinstance(line, Done):
                    return wire.whole(pieces, n, usage_of(prompt, line.tokens))
    except CutOff as error:
        raise InferenceUnavailable(str(error)) from error
    raise AssertionError("the last line is a Done")


async def _stream(
    lines: AsyncGenerator[Line, None], prompt: int, n: int, wire: Wire, with_usage: bool
) -> AsyncIterator[bytes]:
    for index in range(n):
        if (first := wire.begin(index)) is not None:
            yield _event(first)
    try:
        async with aclosing(lines):
            async for line in lines:
                if isinstance(line, Piece):
                    yield _event(wire.chunk(line))
                elif isinstance(line, Done) and with_usage:
                    yield _event(wire.last(usage_of(prompt, line.tokens)))
                elif isinstance(line, Alive):
                    yield b": alive\n\n"  # a comment, so that no proxy takes the connection for dead
    except CutOff as error:
        # The status is sent already. The SDK raises an APIError for this.
        body = {"code": InferenceUnavailable.code, "message": str(error), "param": None, "type": "server_error"}
        yield f"data: {json.dumps({'error': body})}\n\n".encode()
        return
    yield b"data: [DONE]\n\n"


def _event(chunk: BaseModel) -> bytes:
    return f"data: {chunk.model_dump_json()}\n\n".encode()
