"""The models of a running service, for the official SDK, and the servers that answer."""

from typing import Any

import openai
import psutil
import sqlalchemy as sa

from store.models import InferenceServer
from store.session import Sessions
from tests.support.service import Service


def sdk(live: Service, owner: str, **options: Any) -> openai.OpenAI:
    key = live.client.post("/keys", json={"owner": owner}).json()["secret"]
    return openai.OpenAI(base_url=f"{live.client.base_url}/v1", api_key=key, max_retries=0, **options)


def say(client: openai.OpenAI, model: str, text: str = "Say hello.", **fields: Any) -> str:
    given = {"temperature": 0, "max_tokens": 12, **fields}
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **given)
    return answer.choices[0].message.content or ""


def servers(database: Sessions) -> list[InferenceServer]:
    with database() as session:
        return list(session.scalars(sa.select(InferenceServer)))


def processes(live: Service) -> list[int]:
    """Those of inference servers."""
    return [pid for pid in live.everything() if "inference" in " ".join(command_of(pid))]


def command_of(pid: int) -> list[str]:
    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:
        return []
