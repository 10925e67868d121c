"""The table of all steps. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.trainer.run import OURS, Run
from benchmarks.trainer.table import is_void, ratios

HEADER = [
    "step",
    "arm",
    "supervised tok/s",
    "real tok/s",
    "TFLOP/s",
    "share of the peak",
    "GiB",
    "of the plan",
    "1st step s",
    "ours: speed x",
    "eval loss",
]


@dataclass(frozen=True)
class Outcome:
    """What came of a step."""

    step: str
    seconds: float
    problem: str | None
    """Why it failed; None if it did not."""
    summary: str
    """The last line that it printed."""
    runs: Sequence[Run]


def problem_of(returncode: int, seconds: float, limit: float, runs: Sequence[Run] | None) -> str | None:
    """`runs` is None for a step without any."""
    if seconds >= limit:
        return f"killed after {limit:.0f} s"
    if returncode != 0:
        return f"exit status {returncode}"
    if runs is None:
        return None
    if not runs:
        return "no run was measured"
    ours = [run for run in runs if run.arm == OURS]
    for run in runs:
        if run.real_rate is None:
            return f"{run.arm} failed"
        if is_void(ours, [run]):
            return f"the evaluation loss of {run.arm} is too far from ours"
    return None


def rows(outcomes: Sequence[Outcome], peak: float | None) -> Iterator[list[str]]:
    """`peak` is the GPU's, in operations a second."""
    for outcome in outcomes:
        ours = [run for run in outcome.runs if run.arm == OURS]
        for run in outcome.runs:
            faster = None if run.arm == OURS else ratios(ours, [run], lambda each: each.supervised_rate)
            performed = run.operations_per_second
            memory = run.peak_bytes if run.cuda_allocated is None else run.cuda_allocated
            yield [
                outcome.step,
                run.arm,
                _text(run.supervised_rate, ".0f"),
                _text(run.real_rate, ".0f"),
                _text(performed and performed / 1e12, ".1f"),
                _text(performed and peak and performed / peak, ".1%"),
                _text(memory and memory / 2**30, ".1f"),
                _text(memory and run.planned_bytes and memory / run.planned_bytes, ".2f"),
                _text(run.first_step, ".1f"),
                _text(None if faster is None else faster.median, ".2f"),
                _text(run.eval_loss, ".4f"),
            ]


def verdicts(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for outcome in outcomes:
        ended = "passed" if outcome.problem is None else f"FAILED: {outcome.problem}"
        yield f"- {outcome.step}: {ended} in {outcome.seconds:.0f} s" + (
            f" ({outcome.summary})" if outcome.summary else ""
        )


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
