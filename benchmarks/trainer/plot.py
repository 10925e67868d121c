"""The figures as a picture: a row of panels for each work."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.trainer.run import OURS, Run
from benchmarks.trainer.table import Spread, is_void, spread

OWN, OTHER = "#2a6fdb", "#9aa4b2"
PANELS: list[tuple[str, Callable[[Run], float | None]]] = [
    ("supervised tokens a second", lambda run: run.supervised_rate),
    ("peak memory, GiB", lambda run: None if run.peak_bytes is None else run.peak_bytes / 2**30),
    ("launch to the first step, s", lambda run: run.launch),
]


def plot(runs: Sequence[Run], path: Path) -> None:
    """Bars of medians with the range; an arm that is void is hatched."""
    works = list(dict.fromkeys(run.work for run in runs))
    figure = Figure(figsize=(14, 0.8 + 2.4 * len(works)), layout="tight")
    axes = figure.subplots(len(works), len(PANELS), squeeze=False)
    for line, work in zip(axes, works, strict=True):
        mine = [run for run in runs if run.work == work]
        for axis, (label, measured) in zip(line, PANELS, strict=True):
            _bars(axis, mine, measured)
            axis.set_xlabel(label)
        line[0].set_title(work, loc="left", fontweight="bold")
        for axis in line[1:]:
            axis.set_yticklabels([])
    figure.savefig(path, dpi=120)


def _bars(axis: Any, runs: Sequence[Run], measured: Callable[[Run], float | None]) -> None:
    ours = [run for run in runs if run.arm == OURS]
    names = list(dict.fromkeys(run.arm for run in runs))
    for place, name in enumerate(names):
        mine = [run for run in runs if run.arm == name]
        value = spread(map(measured, mine)) or Spread(0, 0, 0)
        error = [[value.median - value.least], [value.most - value.median]]
        hatch = "//" if is_void(ours, mine) else None
        axis.barh(place, value.median, xerr=error, color=OWN if name == OURS else OTHER, hatch=hatch, capsize=2)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
