import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import until


def test_daemon_without_a_worker_ends(tmp_path: Path, database_url: str) -> None:
    environment = {**os.environ, "FINETUNED_DATABASE_URL": database_url, "FINETUNED_BROKER_URL": "redis://x"}
    environment["FINETUNED_HOME"] = str(tmp_path)
    gone = subprocess.Popen(["true"])
    gone.wait()
    daemon = [sys.executable, "-m", "worker.publishing.daemon", str(gone.pid)]
    assert subprocess.run(daemon, env=environment, timeout=60).returncode == 0


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_daemon_ends_with_its_worker(tmp_path: Path, database_url: str, how: str) -> None:
    environment = {**os.environ, "FINETUNED_DATABASE_URL": database_url, "FINETUNED_BROKER_URL": "redis://x"}
    environment["FINETUNED_HOME"] = str(tmp_path)
    keep = (
        "import threading; from worker.supervise.publishing import PublishingProcess; process = PublishingProcess(); "
    )
    keep += "threading.Thread(target=process.run, daemon=True).start(); threading.Event().wait()"
    with subprocess.Popen([sys.executable, "-c", keep], env=environment) as worker:
        try:
            (daemon,) = until(lambda: children(worker.pid))
            until(lambda: is_at_work(daemon))
            getattr(worker, how)()
            worker.wait()
            until(lambda: not Path(f"/proc/{daemon}").exists())
        finally:
            worker.kill()


def children(pid: int) -> list[int]:
    found = []
    for each in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            parent = int(Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            found.append(each)
    return found


def is_at_work(daemon: int) -> bool:
    """It has got to its rounds: SIGTERM is caught."""
    status = Path(f"/proc/{daemon}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught & (1 << 14))
