"""Nothing that other people wrote steers the terminal of who reads it."""

from typing import Any

import pytest

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi, event, job

HOSTILE = "a\x1b[2J\x1b]0;title\x07\r\x9b\x7f\u2028\u202eb"


def printed_by(*arguments: str) -> str:
    done = finetuned(*arguments)
    printed = done.stdout + done.stderr
    assert all(char.isprintable() or char in "\n\t" for char in printed), repr(printed)
    return printed


@pytest.fixture
def hostile(api: FakeApi) -> FakeApi:
    found: dict[str, Any] = job("failed") | {"name": HOSTILE, "owner": HOSTILE, "failure": {"message": HOSTILE}}
    api.answers["GET /jobs"] = (200, {"data": [found], "has_more": False})
    api.answers["GET /jobs/job_1"] = (200, found)
    api.answers["GET /jobs/job_2"] = (404, {"error": {"code": HOSTILE, "message": HOSTILE, "param": None, "type": "x"}})
    api.downloads["/jobs/job_1/artifacts/trainer.log"] = f"one\n{HOSTILE}\nthree\n".encode()
    api.streams.append(
        event("log", "1.0", level="info", message=HOSTILE)
        + event("retry", "2.0", message=HOSTILE, wait_seconds=1)
        + event("status", "3.0", status="failed", attempt=1, failure={"message": HOSTILE})
    )
    return api


@pytest.mark.parametrize(
    "arguments", [("list",), ("list", "--json"), ("show", "job_1"), ("show", "job_2"), ("watch", "job_1")]
)
def test_hostile_text_of_the_service_is_printed_escaped(hostile: FakeApi, arguments: tuple[str, ...]) -> None:
    assert "b" in printed_by(*arguments, "--url", hostile.url)


def test_trainer_log_is_printed_escaped(hostile: FakeApi) -> None:
    printed = printed_by("logs", "job_1", "--url", hostile.url)
    assert printed.startswith("one\na\\u001b[2J")
    assert printed.endswith("\nthree\n")
