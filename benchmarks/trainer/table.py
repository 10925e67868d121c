"""The figures of all rounds as rows for people. Pure."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.trainer.run import FLOOR, OURS, Run

MOST_APART = 0.005
"""Of our evaluation loss: an arm that ends further from it has not done the same work."""


@dataclass(frozen=True)
class Spread:
    median: float
    least: float
    most: float

    def text(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}-{self.most:.{digits}f})"


def spread(values: Iterable[float | None]) -> Spread | None:
    """None where there is no value."""
    known = [value for value in values if value is not None]
    return Spread(statistics.median(known), min(known), max(known)) if known else None


def ratios(ours: Sequence[Run], theirs: Sequence[Run], figure: Callable[[Run], float | None]) -> Spread | None:
    """Ours divided by theirs, each of the same round, so that what slowed a whole round down cancels out."""
    by_round = {run.round: figure(run) for run in theirs}
    divided = []
    for run in ours:
        own, other = figure(run), by_round.get(run.round)
        if own is not None and other:
            divided.append(own / other)
    return spread(divided)


def apart(ours: Sequence[Run], theirs: Sequence[Run]) -> float | None:
    """The largest share of our evaluation loss, in any round, by which theirs differs from it."""
    own = {run.round: run.eval_loss for run in ours}
    shares = []
    for run in theirs:
        reference = own.get(run.round)
        if run.eval_loss is not None and reference:
            shares.append(abs(run.eval_loss - reference) / reference)
    return max(shares, default=None)


def is_void(ours: Sequence[Run], theirs: Sequence[Run]) -> bool:
    """Not the floor, which trains nothing."""
    distance = apart(ours, theirs)
    # Written so that a loss that is not a number is void as well.
    return distance is not None and not distance <= MOST_APART


HEADER = [
    "arm",
    "supervised tok/s",
    "real tok/s",
    "peak GiB",
    "to 1st step s",
    "1st step s",
    "eval loss",
    "ours: speed x",
    "by CPU time x",
    "memory x",
    "launch x",
]


def rows(runs: Sequence[Run]) -> list[list[str]]:
    """Of one work, a row for each arm, in the order in which they first ran."""
    names = list(dict.fromkeys(run.arm for run in runs))
    ours = [run for run in runs if run.arm == OURS]
    return [_row(name, ours, [run for run in runs if run.arm == name]) for name in names]


def _row(name: str, ours: Sequence[Run], theirs: Sequence[Run]) -> list[str]:
    failed = sum(run.real_rate is None for run in theirs)
    label = name + (f" [{failed} of {len(theirs)} FAILED]" if failed else "")
    label += " [VOID]" if is_void(ours, theirs) else ""
    figures = [
        _text(spread(run.supervised_rate for run in theirs), 1),
        _text(spread(run.real_rate for run in theirs), 1),
        _text(spread(_gib(run.peak_bytes) for run in theirs), 2),
        _text(spread(run.launch for run in theirs), 1),
        _text(spread(run.first_step for run in theirs), 1),
        "-" if name == FLOOR else _text(spread(run.eval_loss for run in theirs), 4),
    ]
    if name == OURS:
        return [label, *figures, "", "", "", ""]
    return [
        label,
        *figures,
        _text(ratios(ours, theirs, lambda run: run.supervised_rate), 2),
        _text(ratios(ours, theirs, lambda run: run.processor_rate), 2),
        _text(ratios(ours, theirs, lambda run: run.peak_bytes), 2),
        _text(ratios(ours, theirs, lambda run: run.launch), 2),
    ]


def _gib(size: int | None) -> float | None:
    return None if size is None else size / 2**30


def _text(value: Spread | None, digits: int) -> str:
    return "-" if value is None else value.text(digits)


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Aligned, so that a terminal shows it as well as a document."""
    table = [header, *body]
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in table
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)
