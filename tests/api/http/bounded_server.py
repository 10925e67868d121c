"""`python -m tests.api.http.bounded_server PORT BOUNDS PROXIES`: the API's server in front of a few small answers.
BOUNDS is JSON, PROXIES as FINETUNED_TRUSTED_PROXIES."""

import asyncio
import json
import sys
from pathlib import Path

from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from api.http.bounds import Bounds
from api.http.server import serve
from api.settings import ApiSettings
from runtime import logs
from tests.support.settings import SECRET_KEY


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    path = scope["path"]
    body = b""
    if path == "/length":
        length, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            length, more = length + len(message["body"]), message.get("more_body", False)
        body = b"%d" % length
    elif path == "/client":
        body = scope["client"][0].encode()
    elif path == "/headers":
        await asyncio.sleep(0.3)
        body = b",".join(name for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if path == "/endless":  # a large piece at a time, as a download is
        while (await _soon(receive)) is None:
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
    elif path == "/events":
        for _ in range(50):
            await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
            await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": body or path.encode()})


async def _soon(receive: Receive) -> object:
    """A message, or None: the other side is still there."""
    try:
        return await asyncio.wait_for(receive(), 0.001)
    except TimeoutError:
        return None


if __name__ == "__main__":
    _, port, bounds, proxies = sys.argv
    secret = SecretStr("redis://none")
    settings = ApiSettings.model_validate(
        {
            "database_url": secret,
            "broker_url": secret,
            "secret_key": SECRET_KEY,
            "home": Path("/"),
            "port": int(port),
            "log_format": "json",
            "trusted_proxies": proxies,
        }
    )
    logs.configure(settings)
    serve(app, settings, Bounds(**json.loads(bounds)))
