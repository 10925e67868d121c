from typing import Any

import pytest

from benchmarks.gpu_check.report import Outcome, problem_of, rows, verdicts
from benchmarks.trainer.run import OURS, Run

GIB = 2**30


def run(arm: str = OURS, **figures: Any) -> Run:
    return Run(arm=arm, work="w", round=0, **{"real_rate": 100.0, "supervised_rate": 50.0} | figures)


@pytest.mark.parametrize(
    ("returncode", "seconds", "runs", "problem"),
    [
        (0, 5.0, None, None),
        (1, 5.0, None, "exit status 1"),
        (-9, 10.0, None, "killed after 10 s"),
        (0, 5.0, [], "no run was measured"),
        (0, 5.0, [run(), run("fp8")], None),
        (0, 5.0, [run(), run("fp8", real_rate=None)], "fp8 failed"),
        (0, 5.0, [run(eval_loss=2.0), run("fp8", eval_loss=2.009)], None),
        (0, 5.0, [run(eval_loss=2.0), run("fp8", eval_loss=2.02)], "the evaluation loss of fp8 is too far from ours"),
    ],
)
def test_step_fails_with_a_reason(returncode: int, seconds: float, runs: list[Run] | None, problem: str | None) -> None:
    assert problem_of(returncode, seconds, 10.0, runs) == problem


def test_row_has_shares_of_peak_and_plan() -> None:
    ours = run(operations_per_second=5e14, cuda_allocated=9 * GIB, peak_bytes=20 * GIB, planned_bytes=10 * GIB)
    failed = Run(arm="TRL", work="w", round=0)
    slower = run("slow", supervised_rate=25.0)
    found = list(rows([Outcome("8B", 3.0, None, "", [ours, slower, failed])], peak=1e15))
    assert found[0] == ["8B", OURS, "50", "100", "500.0", "50.0%", "9.0", "0.90", "-", "-", "-"]
    assert found[1] == ["8B", "slow", "25", "100", "-", "-", "-", "-", "-", "2.00", "-"]
    assert found[2] == ["8B", "TRL", *["-"] * 9]


def test_verdict_names_the_problem_and_the_last_line() -> None:
    outcomes = [Outcome("tests", 3.2, None, "9 passed", []), Outcome("8B", 190.0, "killed after 190 s", "", [])]
    assert list(verdicts(outcomes)) == [
        "- tests: passed in 3 s (9 passed)",
        "- 8B: FAILED: killed after 190 s in 190 s",
    ]
