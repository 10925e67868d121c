import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from runtime.logs import SecretFilter, make_formatter
from runtime.settings import StoreSettings

SETTINGS = StoreSettings(
    database_url=SecretStr("postgresql+psycopg://user:of%2Fdatabase@host/name"),
    broker_url=SecretStr("redis://:of-broker@host:6379/0"),
    home=Path("/"),
)


def written(code: str, log_format: str = "json") -> str:
    """What a process writes that has a log."""
    before = (
        "import logging, structlog; from runtime import logs; from runtime.settings import StoreSettings; "
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


def test_log_line_is_json_with_bound_values() -> None:
    bind = "structlog.contextvars.bind_contextvars(job_id='job_1', attempt=2)"
    (line,) = written(bind + "; log.warning('%s went', 'it', extra={'x': 1})").splitlines()
    reported = json.loads(line)
    time = reported.pop("time")
    assert time.endswith("Z")
    assert reported == {
        "level": "warning", "logger": "a.part", "event": "it went", "job_id": "job_1", "attempt": 2, "x": 1
    }  # fmt: skip


def test_traceback_is_a_string_of_its_line() -> None:
    (line,) = written("try: 1/0\nexcept Exception: log.exception('no')").splitlines()
    assert "ZeroDivisionError" in json.loads(line)["exception"]


def test_text_is_for_people() -> None:
    text = written("log.info('it went', extra={'x': 1})\ntry: 1/0\nexcept Exception: log.exception('no')", "text")
    first, second, *trace = text.splitlines()
    assert first.endswith("info    it went x=1")
    assert second.endswith("error   no")
    assert trace[-1] == "    ZeroDivisionError: division by zero"


HOSTILE = st.text(
    st.one_of(
        st.sampled_from('\n\r\t\x0b\x0c\x00\x1b\x7f\x85\x9b\u2028\u2029\u202e\u2066\u200f\ufeff\ud800\U000e0041"\\= ['),
        st.characters(),
    )
)
BEGINNING = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z [a-z]+ ")


@pytest.mark.parametrize("as_text", [True, False], ids=["text", "json"])
@given(event=HOSTILE, argument=HOSTILE, extra=HOSTILE, bound=HOSTILE, error=HOSTILE | st.none())
def test_log_event_is_one_line_without_controls(
    as_text: bool, event: str, argument: str, extra: str, bound: str, error: str | None
) -> None:
    """Nor can a traceback be taken for another event."""
    thrown = (
        None if error is None else (ValueError, ValueError(f"{error}\n2026-11-29T00:00:00.000000Z info forged"), None)
    )
    record = logging.LogRecord("a.part", logging.INFO, "a.py", 1, event.replace("%", "%%") + "%s", (argument,), thrown)
    record.extra = extra
    with structlog.contextvars.bound_contextvars(owner=bound):
        lines = make_formatter(SETTINGS, as_text).format(record).split("\n")
    assert all(line.isprintable() for line in lines)
    if as_text:
        assert BEGINNING.match(lines[0])
        assert all(line.startswith("    ") for line in lines[1:])
        assert (len(lines) == 1) == (error is None)
    else:
        (line,) = lines
        reported = json.loads(line)
        assert (reported["event"], reported["extra"], reported["owner"]) == (event + argument, extra, bound)


def test_log_value_cannot_pass_for_a_field() -> None:
    text = written("log.info('request', extra={'job_id': 'x status=200 owner=admin'})", "text")
    assert text.endswith('request job_id="x status=200 owner=admin"\n')


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_uncaught_error_is_logged_as_json(log_format: str) -> None:
    text = written(
        "import threading\n"
        "def fail(): raise ValueError('of a thread \\x1b[2J\\n2026-11-29T00:00:00Z info forged')\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()",
        log_format,
    )
    assert "of a thread " in text
    assert "\x1b" not in text
    assert not any(line.startswith("2026-11-29T00:00:00Z") for line in text.splitlines())


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


def test_other_values_stay_in_the_log() -> None:
    line = "job_0123456789abcdef failed: https://example.com/x?y=1 user@example.com sk- basic training; task-based"
    assert SecretFilter(SETTINGS)(None, "", line) == line
