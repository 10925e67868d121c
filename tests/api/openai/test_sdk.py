"""What the official SDK of OpenAI makes of what a service seldom answers; the rest is in acceptance/test_openai.py."""

import openai
import pytest
from pydantic import SecretStr

from api.settings import ApiSettings
from store.session import Sessions
from tests.api.openai.sdk import sdk
from tests.support.api import ADMIN_KEY, serve


def test_frequent_sdk_requests_get_a_rate_limit_error(settings: ApiSettings, sessions: Sessions) -> None:
    limited = settings.model_copy(update={"rate_limit": "1/minute", "admin_key": SecretStr(ADMIN_KEY)})
    with serve(limited) as client:
        # A key of ours is counted on loopback too.
        key = client.post("/keys", json={"owner": "anna"}).json()["secret"]
        anna = sdk(client, key)
        anna.models.list()
        with pytest.raises(openai.RateLimitError) as refused:
            anna.models.list()
    assert refused.value.code == "rate_limit_exceeded"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60


def test_sdk_retries_without_a_database(settings: ApiSettings) -> None:
    nowhere = SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")
    away = serve(settings.model_copy(update={"database_url": nowhere}))
    with away as client, pytest.raises(openai.InternalServerError) as failed:
        sdk(client, "none").fine_tuning.jobs.list()
    assert (failed.value.status_code, failed.value.code) == (503, "database_unavailable")
    assert failed.value.response.headers["retry-after"] == "2"
    assert "x-should-retry" not in failed.value.response.headers
