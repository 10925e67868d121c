"""Responses of a pydantic model. FastAPI would check the model again in another thread, and write it in the event loop,
where it holds up all other requests."""

from http import HTTPStatus

from fastapi import Response
from pydantic import BaseModel


def json_response(model: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return json_text(model.model_dump_json(), status)


def json_text(text: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(text, status, media_type="application/json")
