"""A running job, from its events: drawn for a terminal, or as lines of text."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from finetuned.cli.curve import curve
from finetuned.events import JobEvent
from finetuned.status import TERMINAL, Status

_BARS = "▁▂▃▄▅▆▇█"
_STYLES = {
    Status.QUEUED: "yellow",
    Status.RUNNING: "cyan",
    Status.PAUSED: "yellow",
    Status.SUCCEEDED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "magenta",
}
_NOTES_SHOWN = 6
_SAMPLES_SHOWN = 2
_FEWEST_FOR_A_CURVE = 10
_CURVE_LINES = 5
_LONGEST_SAMPLE = 300  # characters of an answer
_LONGEST_PROMPT = 50


@dataclass
class JobDisplay:
    job_id: str
    name: str | None
    status: Status
    attempt: int = 0
    phases: list[tuple[str, float]] = field(default_factory=list)
    """Phases of the start-up, with the seconds of each."""
    started: dict[str, Any] = field(default_factory=dict)
    metric: dict[str, Any] = field(default_factory=dict)
    """The latest metric event."""
    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    """Step and loss of each evaluation."""
    rewards: str = ""
    """Those of the last one; empty for a method without rewards."""
    samples: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Samples of the latest evaluation that has any, by index."""
    notes: list[str] = field(default_factory=list)
    failure: dict[str, Any] | None = None
    command: Callable[[str], str] = "finetuned {}".format
    """Gives the command line for words such as "resume JOB" on the job's service."""
    waits: str = ""
    """What the job waits for; empty while it runs."""

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    def apply(self, event: JobEvent) -> str | None:
        """Applies an event; gives a line about it if it deserves one."""
        data = event.data
        match event.type:
            case "status":
                return self._apply_status(data)
            case "queue":
                self.waits = f"number {data['position']} in the queue. {data['reason']}"
                return self.waits
            case "retry":
                return self._note(_retry_line(data))
            case "phase":
                self.phases.append((data["name"], data["seconds"]))
                return f"{_phase_name(data['name'])} {data['seconds']:.1f} s"
            case "started":
                self.started = data
                if data.get("resumed_step"):
                    self._note(f"attempt {self.attempt} continues from step {data['resumed_step']}")
                return _sizes(data)
            case "metric":
                self.metric = data
                self.losses.append(data["loss"])
                return None
            case "evaluation":
                self.evaluations.append((data["step"], data["eval_loss"]))
                when = "before the first step" if data["step"] == 0 else f"at step {data['step']}"
                self.rewards = rewards(data.get("reward_accuracy"), data.get("reward_margin"))
                return f"evaluation loss {data['eval_loss']:.3f} {when}{self.rewards}"
            case "sample":
                return self._apply_sample(data)
            case "checkpoint":
                what = "adapter" if data.get("final") else "checkpoint"
                return self._note(f"{what} saved at step {data['step']} ({format_bytes(data['bytes'])})")
            case "log":
                return self._note(data["message"] if data["level"] == "info" else f"{data['level']}: {data['message']}")
            case _:
                return None

    def _apply_status(self, data: dict[str, Any]) -> str:
        before, self.status, self.attempt = self.status, Status(data["status"]), data.get("attempt", self.attempt)
        self.failure = data.get("failure")
        self.waits = ""
        if self.status == Status.RUNNING:
            self.phases.clear()  # each attempt has its own start-up
        if self.status == Status.RUNNING and self.attempt > 1:
            return self._note(f"attempt {self.attempt} starts")
        if self.status == Status.QUEUED and before != Status.QUEUED:
            return self._note("queued again")
        if self.status == Status.PAUSED:
            self.waits = f"paused; resume it with: {self.command(f'resume {self.job_id}')}"
            return self.waits
        return f"{self.status}"

    def _apply_sample(self, data: dict[str, Any]) -> str | None:
        if any(sample["step"] != data["step"] for sample in self.samples.values()):
            self.samples.clear()
        self.samples[data["index"]] = data
        if data["index"] >= _SAMPLES_SHOWN:
            return None
        return "\n".join([f"sample {data['index']} at step {data['step']}", *_sample_lines(data)])

    def _note(self, line: str) -> str:
        self.notes.append(line)
        return line

    def metric_line(self) -> str:
        m = self.metric
        total = self.started.get("total_steps", "?")
        return (
            f"step {m['step']}/{total}  epoch {m['epoch']:.2f}  loss {m['loss']:.4f}  "
            f"{m['tokens_per_second']:,.0f} tokens/s  {format_seconds(m['eta_seconds'])} left{_scaling(m, '  ')}"
        )

    def last_line(self) -> str:
        """The outcome of the job."""
        if self.status == Status.SUCCEEDED:
            return f"succeeded: {self._loss_change()}; {self.command(f'download {self.job_id}')}"
        if self.status == Status.FAILED:
            return f"failed: {(self.failure or {}).get('message', 'for an unknown reason')}"
        return str(self.status)

    def _loss_change(self) -> str:
        if len(self.evaluations) > 1:
            return f"evaluation loss {self.evaluations[0][1]:.3f} -> {self.evaluations[-1][1]:.3f}{self.rewards}"
        return f"loss {self.losses[0]:.3f} -> {self.losses[-1]:.3f}" if self.losses else "no step was needed"


def rewards(accuracy: float | None, margin: float | None) -> str:
    """Those of an evaluation, after its loss; empty for a method without rewards."""
    if accuracy is None:
        return ""
    return f", reward accuracy {accuracy:.0%}" + ("" if margin is None else f", margin {margin:.3f}")


def draw(view: JobDisplay, width: int) -> RenderableType:
    """Draws a view for a terminal of `width` columns."""
    rows = Table.grid(padding=(0, 2), expand=False)
    rows.add_column(style="dim", justify="right", min_width=8)
    rows.add_column(overflow="fold")
    for label, content in _rows(view, max(20, min(60, width - 40))):
        rows.add_row(label, content)
    notes = [Text(f"  {note}", style="dim") for note in view.notes[-_NOTES_SHOWN:]]
    end = [Text(view.last_line(), style=f"bold {_STYLES[view.status]}")] if view.ended else []
    return Group(title(view.status, view.name, view.job_id), rows, *notes, *end)


def title(status: str, name: str | None, job_id: str) -> Text:
    """The first line about a job. A newer service may have other statuses."""
    style = _STYLES[Status(status)] if status in _STYLES else ""
    return Text.assemble((f"● {status}", f"bold {style}"), f"  {one_line(name or '')}  ", (job_id, "dim"))


def _rows(view: JobDisplay, width: int) -> Iterator[tuple[str, RenderableType]]:
    if view.waits:
        yield "waits", Text(view.waits)
    if view.phases:
        yield "start", Text(" · ".join(f"{_phase_name(name)} {seconds:.1f} s" for name, seconds in view.phases))
    if view.started:
        yield "", Text(_sizes(view.started))
    if not view.metric:
        return
    m = view.metric
    bar = Table.grid(padding=(0, 2))
    steps = f"step {m['step']}/{view.started.get('total_steps', '?')}  epoch {m['epoch']:.2f}"
    bar.add_row(
        ProgressBar(1.0, m["progress"], width, complete_style="cyan", finished_style="green"), Text(steps, style="bold")
    )
    yield "progress", bar
    few = len(view.losses) < _FEWEST_FOR_A_CURVE
    yield (
        "loss",
        Text.assemble((f"{m['loss']:.4f}", "bold"), "  ", (sparkline(view.losses, width) if few else "", "cyan")),
    )
    if not few:
        finite = [loss for loss in view.losses if math.isfinite(loss)] or [math.nan]
        labels = [f"{max(finite):.3g}", *[""] * (_CURVE_LINES - 2), f"{min(finite):.3g}"]
        for label, line in zip(labels, curve(view.losses, width, _CURVE_LINES), strict=False):
            yield label, Text(line, style="cyan")
    if view.evaluations:
        first, last = view.evaluations[0][1], view.evaluations[-1][1]
        change = f"{first:.3f}" if len(view.evaluations) == 1 else f"{first:.3f} → {last:.3f}"
        step, lowest = min(view.evaluations, key=lambda evaluation: evaluation[1])
        note = f"  lowest {lowest:.3f} at step {step}" if lowest < last else ""
        yield "eval", Text.assemble((change, "bold"), view.rewards or note)
    left = "" if view.ended else f"  ·  {format_seconds(m['eta_seconds'])} left"
    yield "speed", Text(f"{m['tokens_per_second']:,.0f} tokens/s  ·  {format_bytes(m['memory_bytes'])} in memory{left}")
    if scaling := _scaling(m):
        yield "fp16", Text(scaling)
    for index in sorted(view.samples)[:_SAMPLES_SHOWN]:
        lines = "\n".join(_sample_lines(view.samples[index]))
        yield f"sample {index}", Text(lines, no_wrap=True, overflow="ellipsis")


def _retry_line(data: dict[str, Any]) -> str:
    if "micro_batch_size" in data:
        steps = f"{data['effective_batch_size']} examples in a step as before"
        again = f"again with a micro-batch of {data['micro_batch_size']}, and {steps}"
    else:
        counted = f"retry {data['retries']} of {data['max_retries']}" if "retries" in data else "again"
        again = f"{counted} in {format_seconds(data['wait_seconds'])}"
    return f"{data['message']}; {again}"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draws `values` as at most `width` bars, each the mean of neighbouring values."""
    count = min(width, len(values))
    bounds = [len(values) * i // count for i in range(count + 1)] if count else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(bounds)]
    finite = [mean for mean in means if abs(mean) < float("inf")]
    if not finite:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(_BARS[round((mean - low) / span * 7)] if mean in finite else "!" for mean in means)


def format_bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def format_seconds(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02} h"


def one_line(text: str) -> str:
    """The text on one line, without the control characters that models and programs may emit."""
    return "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))


def _scaling(metric: dict[str, Any], before: str = "") -> str:
    """The loss scale and its skipped steps, after `before`; empty for a run without one."""
    scale, skipped = metric.get("loss_scale"), metric.get("skipped_steps", 0)
    parts = [] if scale is None else [f"loss scale {scale:,g}"]
    if skipped:
        parts.append(f"{skipped} {'step' if skipped == 1 else 'steps'} skipped")
    return before + " · ".join(parts) if parts else ""


def _sample_lines(sample: dict[str, Any]) -> list[str]:
    prompt, expected, generated = (one_line(sample[name]) for name in ("prompt", "expected", "generated"))
    if len(prompt) > _LONGEST_PROMPT:  # the question is at its end
        prompt = f"...{prompt[3 - _LONGEST_PROMPT :]}"
    return [
        f"  prompt     {prompt}",
        f"  expected   {_truncate(expected, _LONGEST_SAMPLE)}",
        f"  generated  {_truncate(generated, _LONGEST_SAMPLE)}",
    ]


def _truncate(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _phase_name(name: str) -> str:
    return name.replace("_", " ")


def _sizes(started: dict[str, Any]) -> str:
    trainable, total = started["trainable_parameters"], started["total_parameters"]
    devices = "" if started["world_size"] == 1 else f"{started['world_size']} x "
    return (
        f"{trainable / 1e6:.1f} M of {total / 1e6:,.0f} M parameters · {started['train_examples']:,} examples · "
        f"{devices}{started['device']} · {started['precision']}"
    )
