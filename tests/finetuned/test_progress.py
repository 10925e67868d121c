import io
import math
from typing import Any

import pytest
from rich.console import Console

from contract.status import JobStatus
from finetuned.client import JobEvent
from finetuned.progress import JobView, draw, format_bytes, format_seconds, sparkline


def view(*events: tuple[str, dict[str, Any]]) -> JobView:
    seen = JobView("job_1", "a [bold] name", JobStatus.QUEUED)
    for kind, data in events:
        seen.apply(JobEvent(kind, 0.0, data))
    return seen


def metric(step: int, loss: float) -> tuple[str, dict[str, Any]]:
    return "metric", {
        "step": step, "epoch": 0.5, "loss": loss, "tokens_per_second": 1234.5, "eta_seconds": 90.0,
        "progress": step / 10, "memory_bytes": 2_000_000,
    }  # fmt: skip


STARTED = (
    "started",
    {
        "total_steps": 10, "train_examples": 100, "trainable_parameters": 5_000_000, "total_parameters": 135_000_000,
        "world_size": 1, "device": "cpu", "precision": "bf16",
    },
)  # fmt: skip


def drawn(seen: JobView, width: int = 100) -> str:
    paper = io.StringIO()
    Console(width=width, file=paper).print(draw(seen, width))
    return paper.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_running_job_shows_where_it_is(width: int) -> None:
    seen = view(
        ("status", {"status": "running", "attempt": 1}),
        ("phase", {"name": "imports", "seconds": 2.14}),
        STARTED,
        ("evaluation", {"step": 0, "eval_loss": 4.0}),
        metric(1, 3.0),
        metric(2, 2.0),
        ("evaluation", {"step": 2, "eval_loss": 1.5}),
        ("checkpoint", {"step": 2, "bytes": 5_000_000}),
    )
    text = " ".join(drawn(seen, width).split())
    for part in (
        "running",
        "a [bold] name",
        "imports 2.1 s",
        "step 2/10",
        "2.0000",
        "█▁",
        "4.000 → 1.500",
        "1,234 tokens/s",
    ):
        assert part in text
    assert "checkpoint saved at step 2 (5.0 MB)" in text


def test_a_job_that_has_not_started_can_be_drawn() -> None:
    assert "queued" in drawn(view())


def test_a_failed_job_shows_why() -> None:
    seen = view(("status", {"status": "failed", "attempt": 1, "failure": {"message": "out of memory at 8 examples"}}))
    assert "failed: out of memory at 8 examples" in drawn(seen)


def test_a_second_attempt_is_noted() -> None:
    seen = view(
        ("status", {"status": "running", "attempt": 1}),
        ("status", {"status": "queued", "attempt": 1}),
        ("status", {"status": "running", "attempt": 2}),
    )
    assert seen.notes == ["its worker has stopped; the job is queued again", "attempt 2 starts"]


def test_events_of_a_newer_service_are_passed_over() -> None:
    assert view(("weather", {"sky": "blue"})).notes == []


def test_a_sparkline_is_as_wide_as_it_may_be() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([1.0], 10) == "▁"
    assert sparkline([0.0, 7.0], 10) == "▁█"
    assert sparkline([float(i) for i in range(800)], 8) == "▁▂▃▄▅▆▇█"


def test_a_sparkline_marks_a_loss_that_is_no_number() -> None:
    assert sparkline([1.0, math.nan, 2.0, math.inf], 10) == "▁!█!"


def test_sizes_and_times_are_told_in_the_unit_that_fits() -> None:
    assert [format_bytes(count) for count in (12, 1_500, 2_500_000, 3e9)] == ["12 B", "1.5 kB", "2.5 MB", "3.0 GB"]
    assert [format_seconds(seconds) for seconds in (5.4, 65, 3_660)] == ["5 s", "1:05 min", "1:01 h"]
