"""Curves, whole and thinned: no spike is lost."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.jobs import curves, jobs, progress
from store.jobs.curves import CurveRange
from store.models import StepMetric
from store.session import Sessions
from tests.support.jobs import create_job

VALUES = st.one_of(st.just(1.0), st.floats(-1e6, 1e6, allow_nan=False))
ROWS = st.lists(st.tuples(VALUES, st.none() | VALUES), max_size=60)
"""Loss and gradient norm of each step."""


def fill(sessions: Sessions, rows: list[tuple[float, float | None]], first: int = 1) -> str:
    job_id = create_job(sessions)
    with sessions.begin() as session:
        session.add_all(
            StepMetric(
                **{"job_id": job_id, "step": step, "time": step / 2, "epoch": step / 10, "loss": loss},
                **{
                    "learning_rate": 1e-4,
                    "grad_norm": norm,
                    "overflow": False,
                    "skipped_steps": 0,
                    "tokens": 10 + step,
                },
                **{
                    "supervised_tokens": 5,
                    "tokens_per_second": 9.0,
                    "memory_bytes": 1,
                    "progress": 0,
                    "eta_seconds": 1,
                },
            )
            for step, (loss, norm) in enumerate(rows, start=first)
        )
    return job_id


def read(sessions: Sessions, job_id: str, wanted: CurveRange = CurveRange()) -> dict[str, Any]:  # noqa: B008
    with sessions.begin() as session:
        found: dict[str, Any] = json.loads(curves.read(session, job_id, None, wanted) or "")
    return found


def delete(sessions: Sessions, job_id: str) -> None:
    with sessions.begin() as session:
        session.delete(jobs.get(session, job_id))


# Each example deletes what it made.
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ROWS, st.integers(2, 30), st.integers(0, 20), st.integers(0, 70))
def test_thinned_curve_keeps_every_groups_extremes(
    sessions: Sessions, rows: list[tuple[float, float | None]], points: int, after: int, upto: int
) -> None:
    job_id = fill(sessions, rows)
    wanted = CurveRange(("loss", "grad_norm"), after, upto, points=points)
    found = read(sessions, job_id, wanted)
    whole = read(sessions, job_id, CurveRange(("loss", "grad_norm"), after, upto))["columns"]
    delete(sessions, job_id)
    columns, steps = found["columns"], whole["step"]
    assert found["total"] == len(steps)
    assert found["thinned"] == (len(columns["step"]) < len(steps))
    kept = dict(zip(columns["step"], zip(*columns.values(), strict=True), strict=True))
    every = dict(zip(steps, zip(*whole.values(), strict=True), strict=True))
    assert kept.items() <= every.items()
    assert [*kept] == sorted(kept)
    assert {*steps[:1], *steps[-1:]} <= kept.keys()
    groups = points // 2
    for number in range(groups):
        group = [step for step in steps if (step - steps[0]) * groups // (steps[-1] - steps[0] + 1) == number]
        for name in ("loss", "grad_norm"):
            values = {step: value for step, value in zip(steps, whole[name], strict=True) if step in group}
            values = {step: value for step, value in values.items() if value is not None}
            if values:
                ours = {value for step, value in values.items() if step in kept}
                assert {min(values.values()), max(values.values())} <= ours
    assert len(kept) <= groups * 4 + 2


def test_without_points_every_step_is_there(sessions: Sessions) -> None:
    job_id = fill(sessions, [(step % 7, None) for step in range(300)])
    found = read(sessions, job_id)
    assert found["columns"]["step"] == list(range(1, 301))
    assert (found["total"], found["thinned"]) == (300, False)
    assert found["columns"].keys() == {*progress.METRIC_COLUMNS}


def test_constant_column_keeps_few_steps(sessions: Sessions) -> None:
    job_id = fill(sessions, [(1.0, None)] * 300)
    assert len(read(sessions, job_id, CurveRange(("learning_rate", "overflow"), points=10))["columns"]["step"]) <= 12


@pytest.mark.parametrize("points", [None, 4])
def test_tokens_count_from_the_first_step_of_the_job(sessions: Sessions, points: int | None) -> None:
    job_id = fill(sessions, [(1.0, None)] * 20)
    found = read(sessions, job_id, CurveRange(("loss",), after=9, upto=15, points=points))["columns"]
    assert found.keys() == {"step", "time", "epoch", "tokens", "loss"}
    assert found["tokens"] == [sum(10 + step for step in range(1, last + 1)) for last in found["step"]]


def test_pages_of_a_whole_table_make_one(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "_PAGE", 7)
    job_id = fill(sessions, [(float(step), None) for step in range(20)])
    rows = [row for page in curves.list_steps(sessions, job_id) for row in page]
    whole = read(sessions, job_id)["columns"]
    assert [list(column) for column in zip(*rows, strict=True)] == [whole[name] for name in curves.COLUMNS]
