import io
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from finetuned.cli.curve import curve
from finetuned.cli.job_text import JobDisplay, draw, format_bytes, format_seconds, sparkline
from finetuned.events import JobEvent
from finetuned.status import Status


def view(*events: tuple[str, dict[str, Any]]) -> JobDisplay:
    seen = JobDisplay("job_1", "a [bold] name", Status.QUEUED)
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


def drawn(seen: JobDisplay, width: int = 100) -> str:
    paper = io.StringIO()
    Console(width=width, file=paper).print(draw(seen, width))
    return paper.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_running_job_shows_where_it_is(width: int) -> None:
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


def test_loss_scale_and_skipped_steps_are_shown() -> None:
    kind, plain = metric(1, 3.0)
    half = {**plain, "loss_scale": 65536.0, "skipped_steps": 2}
    assert "65,536" not in drawn(view(STARTED, (kind, plain)))
    assert "skipped" not in view(STARTED, (kind, {**plain, "loss_scale": None, "skipped_steps": 0})).metric_line()
    seen = view(STARTED, (kind, half))
    assert seen.metric_line().endswith("left  loss scale 65,536 · 2 steps skipped")
    assert "loss scale 65,536 · 2 steps skipped" in drawn(seen)


def test_lowest_evaluation_loss_is_shown() -> None:
    losses = [("evaluation", {"step": step, "eval_loss": loss}) for step, loss in ((0, 4.0), (4, 1.0), (8, 1.5))]
    assert "lowest" not in drawn(view(metric(1, 1.0), *losses[:2]))
    assert "4.000 → 1.500  lowest 1.000 at step 4" in drawn(view(metric(1, 1.0), *losses))


def sample(step: int, index: int, generated: str, prompt: str = "Who?") -> tuple[str, dict[str, Any]]:
    return "sample", {"step": step, "index": index, "prompt": prompt, "expected": "me", "generated": generated}


def test_rewards_are_shown_with_the_evaluation() -> None:
    seen = JobDisplay("job_1", "pairs", Status.QUEUED)
    first = {"step": 0, "eval_loss": 0.693, "reward_accuracy": 0.0, "reward_margin": 0.0}
    last = {"step": 5, "eval_loss": 0.145, "reward_accuracy": 0.75, "reward_margin": 2.125}
    for data in (first, last):
        line = seen.apply(JobEvent("evaluation", 0.0, data))
    assert line == "evaluation loss 0.145 at step 5, reward accuracy 75%, margin 2.125"
    seen.apply(JobEvent("started", 0.0, STARTED[1]))
    seen.apply(JobEvent("metric", 0.0, metric(5, 0.2)[1]))
    assert "0.693 → 0.145, reward accuracy 75%" in drawn(seen)
    seen.apply(JobEvent("status", 0.0, {"status": "succeeded"}))
    assert "0.693 -> 0.145, reward accuracy 75%, margin 2.125;" in seen.last_line()


def test_newest_samples_are_shown_and_only_so_many() -> None:
    seen = view(
        metric(1, 3.0), sample(0, 0, "stale"), sample(0, 1, "stale"), sample(4, 0, "new"), sample(4, 1, "two"),
        sample(4, 2, "three"),
    )  # fmt: skip
    text = drawn(seen)
    for part in ("sample 0", "prompt     Who?", "expected   me", "generated  new", "generated  two"):
        assert part in text
    assert "stale" not in text
    assert "three" not in text


def test_long_sample_and_prompt_are_shortened() -> None:
    text = drawn(view(metric(1, 3.0), sample(0, 0, "word " * 10_000, prompt="much before " * 1000 + "the question")))
    assert "the question" in text
    assert len(text.splitlines()) < 12
    seen = view()
    line = seen.apply(JobEvent("sample", 0.0, sample(0, 0, "word " * 10_000)[1]))
    assert line is not None
    assert len(line) < 500


def test_sample_cannot_steer_the_terminal() -> None:
    seen = view()
    line = seen.apply(JobEvent("sample", 0.0, sample(0, 0, "red \x1b[31m\r\nnext \x00 [bold]line[/]")[1]))
    assert line is not None
    assert line.splitlines()[-1] == "  generated  red \ufffd[31m next \ufffd [bold]line[/]"


def test_job_that_has_not_started_can_be_drawn() -> None:
    assert "queued" in drawn(view())


def test_failed_job_shows_why() -> None:
    seen = view(("status", {"status": "failed", "attempt": 1, "failure": {"message": "out of memory at 8 examples"}}))
    assert "failed: out of memory at 8 examples" in drawn(seen)


def test_second_attempt_is_noted() -> None:
    seen = view(
        ("status", {"status": "running", "attempt": 1}),
        ("status", {"status": "queued", "attempt": 1}),
        ("status", {"status": "running", "attempt": 2}),
    )
    assert seen.notes == ["queued again", "attempt 2 starts"]


def test_queued_job_shows_its_reason() -> None:
    waiting = view(
        (
            "queue",
            {"position": 2, "reason": "The job waits for 1 GPU.", "estimated_start_at": None},
        )
    )
    assert "number 2 in the queue. The job waits for 1 GPU." in drawn(waiting)
    waiting.apply(JobEvent("status", 0.0, {"status": "running", "attempt": 1}))
    assert "in the queue" not in drawn(waiting)
    assert "paused; resume it with: finetuned resume job_1" in drawn(
        view(("status", {"status": "paused", "attempt": 1}))
    )


def test_oversized_job_shows_its_next_try() -> None:
    seen = view(
        (
            "retry",
            {"code": "out_of_memory", "message": "out of memory", "micro_batch_size": 4, "effective_batch_size": 8},
        ),
    )
    assert seen.notes == ["out of memory; again with a micro-batch of 4, and 8 examples in a step as before"]


def test_job_waiting_for_storage_shows_no_retry() -> None:
    away = {"code": "storage_unavailable", "message": "the storage is away", "wait_seconds": 4.0}
    assert view(("retry", away)).notes == ["the storage is away; again in 4 s"]


def test_retried_job_is_drawn_without_its_failure() -> None:
    seen = view(
        ("status", {"status": "failed", "attempt": 1, "failure": {"message": "out of memory"}}),
        ("status", {"status": "queued", "attempt": 1}),
    )
    assert "out of memory" not in drawn(seen)
    assert seen.notes == ["queued again"]


def test_events_of_a_newer_service_are_passed_over() -> None:
    assert view(("weather", {"sky": "blue"})).notes == []


def test_sparkline_is_as_wide_as_it_may_be() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([1.0], 10) == "▁"
    assert sparkline([0.0, 7.0], 10) == "▁█"
    assert sparkline([float(i) for i in range(800)], 8) == "▁▂▃▄▅▆▇█"


def test_sparkline_marks_a_loss_that_is_no_number() -> None:
    assert sparkline([1.0, math.nan, 2.0, math.inf], 10) == "▁!█!"


def test_sizes_and_times_have_fitting_units() -> None:
    assert [format_bytes(count) for count in (12, 1_500, 2_500_000, 3e9)] == ["12 B", "1.5 kB", "2.5 MB", "3.0 GB"]
    assert [format_seconds(seconds) for seconds in (5.4, 65, 3_660)] == ["5 s", "1:05 min", "1:01 h"]


@given(st.lists(st.floats(), max_size=300), st.integers(1, 60), st.integers(1, 8))
def test_curve_keeps_within_its_box(values: list[float], width: int, height: int) -> None:
    lines = curve(values, width, height)
    assert len(lines) in ((height, 0) if any(map(math.isfinite, values)) else (0,))
    assert all(len(line) <= width and all(0x2800 <= ord(char) <= 0x28FF for char in line) for line in lines)


def test_curve_falls_from_left_to_right() -> None:
    assert curve([3.0, 2.0, 1.0, 0.0], 2, 1) == ["⠑⢄"]
    long = drawn(view(STARTED, *(metric(step, 10.0 / step) for step in range(1, 11))))
    assert "10" in long
    assert "⡇" in long or "⢇" in long or "⢣" in long
