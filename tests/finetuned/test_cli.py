import os
import pty
import subprocess
import sys

import pytest

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi, job
from tests.support.servers import free_port


def test_refusal_is_shown_without_a_traceback(api: FakeApi) -> None:
    api.answers["POST /jobs"] = (422, {"error": {"code": "recipe_invalid", "message": "batch.micro_batch_size: got 0"}})
    done = finetuned("submit", "-", "--url", api.url)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "batch.micro_batch_size: got 0\n")


def test_missing_service_is_reported_with_advice() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = finetuned("list", "--url", url)
    assert done.returncode == 3
    assert url in done.stderr
    assert "finetuned up" in done.stderr


def test_closed_pipe_ends_the_command_quietly(api: FakeApi) -> None:
    many = [job("succeeded") | {"id": f"job_{number:024}"} for number in range(5000)]
    api.answers["GET /jobs"] = (200, {"data": many, "has_more": False})
    listing = [sys.executable, "-W", "error", "-m", "finetuned", "list", "--limit", "5000", "--json", "--url", api.url]
    with subprocess.Popen(listing, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_terminal_has_colours_unless_refused(api: FakeApi, variables: dict[str, str], coloured: bool) -> None:
    api.answers["GET /jobs/job_1"] = (200, job("failed"))
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm-256color"}
    show = [sys.executable, "-m", "finetuned", "show", "job_1", "--url", api.url]
    subprocess.run(show, env=environment | variables, stdout=theirs, stderr=subprocess.DEVNULL, check=True)
    printed = os.read(ours, 10_000)
    os.close(ours)
    os.close(theirs)
    assert b"failed" in printed
    assert (b"\x1b[1;31m" in printed) == coloured
