"""vLLM's routes, as far as they are used."""

import json
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any

import httpx
from pydantic import BaseModel

BASE = "base"
"""The name of the base model. Adapters have names of their own."""

_LONGEST_SILENCE = 60.0
"""Seconds between two bytes of a response. vLLM writes a comment every five."""
_LONGEST_LOAD = 300.0
"""Seconds for an adapter."""


class VllmError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Logprobs(BaseModel):
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    """Of each token: itself and the most likely ones, as "token_id:NUMBER"."""


class AnswerPart(BaseModel):
    token_ids: list[int]
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class _Chunk(BaseModel):
    choices: list[AnswerPart]


class _PromptLogprob(BaseModel):
    logprob: float


class _ScoredPrompt(AnswerPart):
    prompt_logprobs: list[dict[int, _PromptLogprob] | None]
    """Of each token of the prompt: what those before it gave to it."""


class _ScoredPrompts(BaseModel):
    choices: list[_ScoredPrompt]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


class Vllm:
    """Raises VllmError, httpx.TransportError, and ValidationError for a response that cannot be read."""

    def __init__(self, socket: str, key: str) -> None:
        transport = httpx.AsyncHTTPTransport(uds=socket, limits=httpx.Limits(max_connections=None))
        timeout = httpx.Timeout(_LONGEST_SILENCE, pool=None)
        self._http = httpx.AsyncClient(
            transport=transport, base_url="http://vllm", headers=bearer(key), timeout=timeout
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def load_adapter(self, name: str, folder: str) -> None:
        await self._post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder}, _LONGEST_LOAD)

    async def unload_adapter(self, name: str) -> None:
        await self._post("/v1/unload_lora_adapter", {"lora_name": name}, _LONGEST_SILENCE)

    async def complete(self, body: dict[str, Any]) -> AsyncGenerator[AnswerPart, None]:
        """The parts of one answer. vLLM ends the answer if the generator is closed."""
        given = {**body, "stream": True, "return_token_ids": True, "return_tokens_as_token_ids": True}
        async with self._http.stream("POST", "/v1/completions", json=given) as response:
            if response.status_code != HTTPStatus.OK:
                raise _error(response.status_code, await response.aread())
            async for data in _events(response):
                if data == b"[DONE]":
                    return
                if b'"error"' in data and isinstance(error := json.loads(data).get("error"), dict):
                    raise _error(error.get("code"), data)
                for choice in _Chunk.model_validate_json(data).choices:
                    yield choice
        raise VllmError(HTTPStatus.INTERNAL_SERVER_ERROR, "vLLM ended in the middle of an answer")

    async def logprobs(self, model: str, tokens: list[int]) -> list[float]:
        """The log probability of each token but the first, by those before it."""
        # The last one is generated: with all of them as a prompt, a document as long as the context would be too long.
        body = {
            "model": model,
            "prompt": tokens[:-1],
            "max_tokens": 1,
            "allowed_token_ids": tokens[-1:],
            "prompt_logprobs": 0,
            "logprobs": 0,
            "return_token_ids": True,
        }
        response = await self._post("/v1/completions", body, _LONGEST_LOAD)
        (choice,) = _ScoredPrompts.model_validate_json(response).choices
        of_prompt = zip(choice.prompt_logprobs[1:], tokens[1:-1], strict=True)
        before = [found[token].logprob for found, token in of_prompt if found is not None]
        return [*before, *(choice.logprobs.token_logprobs if choice.logprobs else [])]

    async def _post(self, path: str, body: dict[str, Any], longest: float) -> bytes:
        response = await self._http.post(path, json=body, timeout=longest)
        if response.status_code != HTTPStatus.OK:
            raise _error(response.status_code, response.content)
        return response.content


def _error(status: Any, body: bytes) -> VllmError:
    try:
        message = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = body.decode(errors="replace")
    return VllmError(status if isinstance(status, int) else 500, message[:1000])


async def _events(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The data of each event. Only a line feed ends a line: httpx's own lines also end at U+2028."""
    rest = b""
    async for part in response.aiter_bytes():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            if line.startswith(b"data: "):
                yield line.removeprefix(b"data: ")
