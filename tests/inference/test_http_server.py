"""The lines of a server, over HTTP."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contract.inference import ANSWERS, LINE, Alive, AnswerRequest
from inference.http_server import AnswerServer, port_of
from tests.inference.running_loop import RunningLoop
from tests.support.waiting import until
from worker.supervise.inference import host_and_port


@pytest.fixture
def waiting(untied: Path) -> RunningLoop:
    """A loop that has not begun to answer."""
    return RunningLoop(untied)


@pytest.fixture(params=["127.0.0.1", "::1"])
def address(waiting: RunningLoop, request: pytest.FixtureRequest) -> Iterator[str]:
    with AnswerServer(request.param, "secret", waiting.prompts, waiting.loop) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://{host_and_port(request.param, port_of(server))}{ANSWERS}"
        server.shutdown()
        thread.join()


def test_server_notices_a_reader_that_leaves_while_waiting(
    waiting: RunningLoop, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.alive.SECONDS_BETWEEN_LINES", 0.02)
    body = AnswerRequest(adapter=None, text="Hi").model_dump_json()
    headers = {"authorization": "Bearer secret"}
    with httpx.stream("POST", address, content=body, headers=headers, trust_env=False, verify=False) as response:
        assert isinstance(LINE.validate_json(next(response.iter_lines())), Alive)
        (answers,) = waiting.loop._waiting
        assert not answers.cancelled
    until(lambda: answers.cancelled)
