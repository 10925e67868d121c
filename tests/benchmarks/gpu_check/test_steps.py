import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu_check.__main__ import run_all
from benchmarks.gpu_check.report import Outcome
from benchmarks.gpu_check.steps import Step, steps
from benchmarks.trainer.work import ROOT

SLEEPING = [sys.executable, "-c", "import time; time.sleep(60)"]
FAILING = [sys.executable, "-c", "print('it ends here'); raise SystemExit(3)"]
PASSING = [sys.executable, "-c", "print('2 passed')"]


def test_limits_leave_room_for_the_rest(tmp_path: Path) -> None:
    assert sum(step.limit for step in steps(tmp_path, None, None)) <= 8 * 60


def test_failed_step_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = [Step("slow", SLEEPING, 1.0), Step("broken", FAILING, 30.0), Step("good", PASSING, 30.0)]
    outcomes = list(run_all(planned, tmp_path, seconds=100.0))
    assert [outcome.problem for outcome in outcomes] == ["killed after 1 s", "exit status 3", None]
    assert outcomes[2].summary == "2 passed"
    assert "it ends here" in capsys.readouterr().err


def test_step_without_time_fails(tmp_path: Path) -> None:
    assert list(run_all([Step("late", PASSING, 30.0)], tmp_path, seconds=1.0)) == [
        Outcome("late", 0.0, "no time was left for it", "", [])
    ]


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_rehearsal_passes_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [ROOT / "scripts" / "gpu-check", "--short", "--out", out], capture_output=True, text=True, timeout=1700
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = (out / "table.md").read_text()
    assert table in done.stdout
    assert table.count(": passed in") == 5
    runs = [json.loads(line) for file in sorted(out.glob("*/runs.jsonl")) for line in file.read_text().splitlines()]
    assert len(runs) == 2 + 2 + 1 + 1
    assert all(run["real_rate"] and run["operations_per_second"] for run in runs)
