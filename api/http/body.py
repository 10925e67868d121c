"""Reads the JSON body of a request, bounded, and checks it."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError

from api.errors import InvalidBody, RepeatedField
from api.http.json_schema import whole_schema
from contract.json_objects import find_repeated_key

LONGEST = 1_000_000  # bytes

Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: Request) -> bytes:
    """Raises HTTPException, 413, as soon as it is too long."""
    if hasattr(request.state, "body"):
        return request.state.body  # type: ignore[no-any-return]
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {LONGEST} bytes")
    request.state.body = bytes(body)
    return request.state.body  # type: ignore[no-any-return]


def json_body(model: type[Model]) -> Callable[[Request], Awaitable[Model]]:
    """A dependency that returns the body as a `model`. Pydantic parses it: json.loads fails on a body of 100,000
    brackets. Raises InvalidBody, RepeatedField, HTTPException."""

    async def read(request: Request) -> Model:
        body = await read_body(request)
        return parse_body(model, body or b"{}")

    return read


def parse_body(model: type[Model], body: bytes) -> Model:
    """Raises InvalidBody, RepeatedField."""
    try:
        parsed = model.model_validate_json(body)
    except ValidationError as error:
        raise InvalidBody(model, error) from error
    if (path := find_repeated_key(body)) is not None:
        raise RepeatedField(path)
    return parsed


def described(model: type[BaseModel]) -> dict[str, Any]:
    """openapi_extra for a route whose body is read by `json_body` or `read_body`."""
    # No body is as good as an empty object.
    required = any(field.is_required() for field in model.model_fields.values())
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": whole_schema(model)}}}}
