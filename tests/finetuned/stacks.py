"""`finetuned up` as a process."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import read_proc
from tests.support.servers import free_port
from tests.support.service import FAKE_TRAINER
from tests.support.waiting import until


@dataclass
class Up:
    process: subprocess.Popen[str]
    url: str
    log: Path

    def wait(self) -> tuple[int, str]:
        return self.process.wait(40), self.log.read_text()


@contextmanager
def launched(home: Path, log: Path, **environment: str) -> Iterator[Up]:
    """Runs `finetuned up` in a folder that has packages of the service's names, as a user's may."""
    port = free_port()
    current = home.with_name("current")
    for package in ("api", "contract", "dataset", "migrations", "trainer", "worker"):
        (current / package).mkdir(parents=True, exist_ok=True)
        (current / package / "__init__.py").write_text("raise ImportError('this is not the service')\n")
    command = [sys.executable, "-P", "-W", "error", "-m", "finetuned", "up", "--home", str(home), "--port", str(port)]
    trainer = {"FINETUNED_TRAINER": shlex.join([sys.executable, "-P", str(FAKE_TRAINER)])}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=current, stdout=output, stderr=output, text=True, env={**os.environ, **trainer, **environment}
        )
    try:
        yield Up(process, f"http://127.0.0.1:{port}", log)
    finally:
        process.kill()
        process.wait()


@contextmanager
def ready(home: Path, log: Path, **environment: str) -> Iterator[Up]:
    with launched(home, log, **environment) as up:
        until(lambda: "ready at" in log.read_text() or up.process.poll() is not None, seconds=40)
        assert up.process.poll() is None, log.read_text()
        yield up


def pids_of(parent: int, words: str) -> list[int]:
    pids = map(int, filter(str.isdigit, os.listdir("/proc")))
    children = [
        pid for pid in pids if read_proc(pid, "stat").rpartition(b")")[2].split()[1:2] == [str(parent).encode()]
    ]
    return [pid for pid in children if words.encode() in read_proc(pid, "cmdline")]
