import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from store.logs import WithoutSecrets
from store.settings import StoreSettings

SETTINGS = StoreSettings(
    database_url=SecretStr("postgresql+psycopg://user:of%2Fdatabase@host/name"),
    broker_url=SecretStr("redis://:of-broker@host:6379/0"),
    home=Path("/"),
)


def written(code: str, log_format: str = "json") -> str:
    """What a process writes that has a log."""
    before = (
        "import logging, structlog; from store import logs; from store.settings import StoreSettings; "
        f"logs.configure(StoreSettings(log_format={log_format!r})); log = logging.getLogger('a.part')\n"
    )
    environment = {
        **os.environ,
        "FINETUNED_DATABASE_URL": SETTINGS.database_url.get_secret_value(),
        "FINETUNED_BROKER_URL": SETTINGS.broker_url.get_secret_value(),
        "FINETUNED_HOME": "/",
    }
    command = [sys.executable, "-c", before + code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stderr


def test_a_line_is_json_with_what_was_bound_and_what_was_added() -> None:
    bind = "structlog.contextvars.bind_contextvars(job_id='job_1', attempt=2)"
    (line,) = written(bind + "; log.warning('%s went', 'it', extra={'x': 1})").splitlines()
    told = json.loads(line)
    time = told.pop("time")
    assert time.endswith("Z")
    assert told == {
        "level": "warning", "logger": "a.part", "event": "it went", "job_id": "job_1", "attempt": 2, "x": 1
    }  # fmt: skip


def test_a_traceback_is_a_string_of_its_line() -> None:
    (line,) = written("try: 1/0\nexcept Exception: log.exception('no')").splitlines()
    assert "ZeroDivisionError" in json.loads(line)["exception"]


def test_text_is_for_people() -> None:
    text = written("log.info('it went', extra={'x': 1})\ntry: 1/0\nexcept Exception: log.exception('no')", "text")
    first, second, *trace = text.splitlines()
    assert first.endswith("info    it went x=1")
    assert second.endswith("error   no")
    assert trace[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_nothing_secret_is_written_wherever_it_stands(log_format: str) -> None:
    code = """
log.info("key %s", "sk-ft-planted0123456789")
log.info("signed", extra={"with": "whsec_planted/abc+def=="})
log.info({"authorization": "Bearer planted-token"})
log.info("password='planted'")
log.info("AWS_SECRET_ACCESS_KEY=planted")
log.info("redis://:planted@host and postgresql+psycopg://u:planted@host/name")
log.info("of/database of%2Fdatabase of-broker")
try:
    raise ValueError("hf_planted0123456789")
except ValueError:
    log.exception("failed for {'Authorization': 'Basic cGxhbnRlZA=='}")
"""
    text = written(code, log_format)
    assert "planted" not in text
    assert "cGxhbnRlZA" not in text
    assert "of/database" not in text
    assert "of%2F" not in text
    assert "of-broker" not in text
    assert text.count("***") >= 11


def test_what_is_no_secret_stays() -> None:
    line = "job_0123456789abcdef failed: https://example.com/x?y=1 user@example.com sk- basic training; task-based"
    assert WithoutSecrets(SETTINGS)(None, "", line) == line
