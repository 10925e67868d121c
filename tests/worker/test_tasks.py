"""What the pool's processes do at their start."""

import subprocess
import sys
from pathlib import Path

# A process of the pool, and one whose worker has died before it could register for the signal: its parent is another.
SCRIPT = """
import os
from runtime.settings import read_settings
from worker.settings import WorkerSettings
from worker.tasks import CeleryWorker

worker = CeleryWorker(read_settings(WorkerSettings))

def forked(what):
    pid = os.fork()
    if pid == 0:
        what()
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

print(forked(worker.bind_to_worker))
forked(lambda: print(forked(worker.bind_to_worker), flush=True))
"""


def test_orphaned_pool_process_ends_at_once(tmp_path: Path) -> None:
    environment = {
        "FINETUNED_DATABASE_URL": "postgresql+psycopg:///none",
        "FINETUNED_BROKER_URL": "redis+socket:///none",
        "FINETUNED_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-u", "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["7", "-9"]
