import os
import sys
from pathlib import Path

from benchmarks.trainer.measure import watch
from tests.support.waiting import until

MIB = 2**20
HOLDS = "import time; held = b'1' * ({size} << 20); time.sleep(3)"


def test_peak_is_of_all_processes_of_the_tree(tmp_path: Path) -> None:
    child = HOLDS.format(size=100)
    code = f"import subprocess, sys; held = b'1' * (50 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    watched = watch([sys.executable, "-c", code], tmp_path, tmp_path / "log", dict(os.environ), limit=100)
    assert watched.returncode == 0
    assert 150 * MIB < watched.peak_bytes < 250 * MIB


def test_overlong_run_is_killed_with_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    watched = watch(["sh", "-c", "sleep 61 & echo $!; wait"], tmp_path, log, dict(os.environ), limit=3)
    assert watched.returncode == -9
    assert watched.seconds < 60
    child = Path("/proc", log.read_text().strip(), "stat")
    until(lambda: is_over(child))


def is_over(stat: Path) -> bool:
    """Also where it is not yet waited for by whom it was left to."""
    try:
        return stat.read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_processor_time_is_counted_between_two_times(tmp_path: Path) -> None:
    code = "import time\nwhile time.process_time() < 1: pass\ntime.sleep(0.5)"
    watched = watch([sys.executable, "-c", code], tmp_path, tmp_path / "log", dict(os.environ), limit=100)
    end = watched.launched + watched.seconds
    assert 0.7 < watched.processor_seconds(watched.launched, end) < 1.3
    assert watched.processor_seconds(end - 0.3, end) < 0.1
    assert watched.processor_seconds(end + 1, end + 2) == 0
