"""The official SDK of OpenAI on an API in this process."""

import openai
from fastapi.testclient import TestClient


def sdk(client: TestClient, key: str) -> openai.OpenAI:
    """It does not try again: the wait takes longer than a test."""
    return openai.OpenAI(base_url=f"{client.base_url}/v1", api_key=key, http_client=client, max_retries=0)
