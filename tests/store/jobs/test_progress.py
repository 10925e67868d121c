import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import events
from contract.status import RequestedAction
from store.errors import StaleAttempt
from store.jobs import actions, curves, jobs, progress
from store.jobs.curves import CurveRange
from store.jobs.progress import Cursor
from store.models import Artifact, Job
from store.session import Sessions
from tests.support.events import metric
from tests.support.fake_trainer import started
from tests.support.jobs import claim, make_recipe, record_events

LEASE = timedelta(seconds=30)
NOW = time.time() + 3600  # after the status events, which have the real time
START = Cursor()


def measured(step: int, loss: float = 1) -> events.MetricEvent:
    return metric(step, NOW + step, loss)


def evaluation(step: int, loss: float) -> events.EvaluationEvent:
    return events.EvaluationEvent(time=NOW + step, step=step, eval_loss=loss, supervised_tokens=40)


@pytest.fixture
def job_id(sessions: Sessions) -> str:
    recipe = make_recipe()
    with sessions.begin() as session:
        jobs.create(session, recipe)
        job = claim(session, LEASE)
    assert job is not None
    return job.id


def columns(sessions: Sessions, job_id: str, since: int = 0, limit: int = 1000) -> list[int]:
    with sessions.begin() as session:
        return json.loads(curves.read(session, job_id, None, CurveRange(after=since, limit=limit)) or "")["columns"][
            "step"
        ]


def stream(sessions: Sessions, job_id: str, cursor: Cursor = START, limit: int = 1000) -> list[progress.StreamedEvent]:
    with sessions.begin() as session:
        return progress.events_since(session, job_id, cursor, limit)


def test_repeated_step_keeps_its_first_value(sessions: Sessions, job_id: str) -> None:
    record_events(sessions, job_id, measured(1, 2.0), measured(2, 1.5))
    record_events(sessions, job_id, measured(2, 9.0), measured(3, 1.2))
    with sessions.begin() as session:
        kept = json.loads(curves.read(session, job_id, None, CurveRange()) or "")["columns"]
    assert kept["step"] == [1, 2, 3]
    assert kept["loss"] == [2.0, 1.5, 1.2]


def test_earlier_start_replaces_later_metrics(sessions: Sessions, job_id: str) -> None:
    record_events(sessions, job_id, *(measured(step, 9.0) for step in (1, 2, 3, 4)))
    record_events(sessions, job_id, started(total=9, resumed=2), measured(3, 1.0))
    with sessions.begin() as session:
        kept = json.loads(curves.read(session, job_id, None, CurveRange()) or "")["columns"]
    assert kept["step"] == [1, 2, 3]
    assert kept["loss"] == [9.0, 9.0, 1.0]


def test_next_worker_records_what_was_missed(sessions: Sessions, job_id: str) -> None:
    checkpoint = events.CheckpointEvent(time=NOW, step=2, path="checkpoints/step-000002", bytes=1)
    record_events(sessions, job_id, measured(1, 2.0))
    with sessions.begin() as session:
        progress.catch_up(session, job_id, 1, 0, [measured(1, 9.0), measured(2, 1.0), checkpoint], LEASE * 2)
    with sessions.begin() as session:
        assert json.loads(curves.read(session, job_id, None, CurveRange()) or "")["columns"]["loss"] == [2.0, 1.0]
        assert [a.path for a in session.scalars(sa.select(Artifact))] == [f"{job_id}/attempt-0/checkpoints/step-000002"]
        assert session.scalar(sa.select(Job.lease_expires_at > sa.func.now() + LEASE * 1.5))
    with pytest.raises(StaleAttempt), sessions.begin() as session:
        progress.catch_up(session, job_id, 2, 1, [measured(3)], LEASE)


def test_stale_attempt_tells_nothing(sessions: Sessions, job_id: str) -> None:
    with pytest.raises(StaleAttempt):
        record_events(sessions, job_id, measured(1), attempt=2)
    assert columns(sessions, job_id) == []


def test_recording_brings_back_the_requested_action(sessions: Sessions, job_id: str) -> None:
    assert record_events(sessions, job_id) is None
    with sessions.begin() as session:
        actions.cancel(session, job_id)
    assert record_events(sessions, job_id) == RequestedAction.CANCEL


def test_metrics_are_read_by_range(sessions: Sessions, job_id: str) -> None:
    record_events(sessions, job_id, *map(measured, range(1, 21)))
    assert columns(sessions, job_id, since=5, limit=3) == [6, 7, 8]


@pytest.mark.parametrize("thin", [None, 5])
def test_no_metrics_are_empty_columns(sessions: Sessions, job_id: str, thin: int | None) -> None:
    with sessions.begin() as session:
        columns = json.loads(curves.read(session, job_id, None, CurveRange(points=thin)) or "")["columns"]
    assert set(columns) == {*events.MetricEvent.model_fields} - {"type"}
    assert all(column == [] for column in columns.values())


def test_evaluations_are_columns_of_their_own(sessions: Sessions, job_id: str) -> None:
    record_events(sessions, job_id, evaluation(0, 3.0), measured(1), evaluation(1, 2.0))
    with sessions.begin() as session:
        assert json.loads(curves.read(session, job_id, None, CurveRange()) or "")["evaluations"] == {
            "step": [0, 1],
            "eval_loss": [3.0, 2.0],
            "time": [NOW, NOW + 1],
        }
        assert progress.latest(session, [job_id])[job_id].eval_loss == 2.0


def test_checkpoints_become_artifacts(sessions: Sessions, job_id: str) -> None:
    mid = events.CheckpointEvent(time=1, step=5, path="checkpoints/step-000005", bytes=10)
    end = events.CheckpointEvent(time=2, step=9, path="adapter", bytes=10, final=True)
    record_events(sessions, job_id, mid, end)
    with sessions.begin() as session:
        found = {artifact.name: artifact.path for artifact in session.scalars(sa.select(Artifact))}
    assert found == {
        "adapter.tar": f"{job_id}/attempt-1/adapter",
        "checkpoint-5.tar": f"{job_id}/attempt-1/checkpoints/step-000005",
    }


def test_fp16_values_are_stored(sessions: Sessions, job_id: str) -> None:
    overflow = {"grad_norm": None, "loss_scale": 32768.0, "overflow": True, "skipped_steps": 1}
    record_events(sessions, job_id, measured(1), measured(2).model_copy(update=overflow))
    with sessions.begin() as session:
        kept = json.loads(curves.read(session, job_id, None, CurveRange()) or "")["columns"]
    assert {name: kept[name] for name in overflow} == {
        "grad_norm": [0.5, None],
        "loss_scale": [None, 32768.0],
        "overflow": [False, True],
        "skipped_steps": [0, 1],
    }
    reported = stream(sessions, job_id)[-1].data
    assert {name: reported[name] for name in overflow} == overflow


def sample(step: int, index: int, generated: str = "yes") -> events.SampleEvent:
    return events.SampleEvent(time=NOW + step, step=step, index=index, prompt="?", expected="yes", generated=generated)


def test_samples_are_stored_once_per_evaluation(sessions: Sessions, job_id: str) -> None:
    record_events(sessions, job_id, sample(0, 0, "no"), sample(2, 1, "old"), sample(2, 0), sample(2, 1, "new"))
    with sessions.begin() as session:
        newest = progress.samples(session, job_id, None)
        assert [(each["index"], each["generated"]) for each in newest] == [(0, "yes"), (1, "new")]
        assert [each["generated"] for each in progress.samples(session, job_id, 0)] == ["no"]
        assert progress.samples(session, job_id, 1) == []


def test_samples_of_any_characters_are_stored(sessions: Sessions, job_id: str) -> None:
    record_events(sessions, job_id, sample(1, 0, "a\0b \ud800 \N{SNOWMAN}"))
    with sessions.begin() as session:
        assert [each["generated"] for each in progress.samples(session, job_id, 1)] == ["a\ufffdb ? \N{SNOWMAN}"]
    assert stream(sessions, job_id)[-1].data["generated"] == "a\ufffdb ? \N{SNOWMAN}"


def test_ended_run_has_its_last_step(sessions: Sessions, job_id: str) -> None:
    done = events.DoneEvent(
        time=NOW, step=9, completed=True, stopped_early=True, best_step=4, train_loss=1.0, eval_loss=1.0
    )
    record_events(sessions, job_id, measured(9))
    with sessions.begin() as session:
        assert progress.latest(session, [job_id])[job_id].done == {}
    record_events(sessions, job_id, done)
    with sessions.begin() as session:
        reported = progress.latest(session, [job_id])[job_id].done
    assert (reported["stopped_early"], reported["best_step"]) == (True, 4)


def test_first_readers_of_a_process_do_not_disturb_each_other(
    sessions: Sessions, engine: sa.Engine, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_events(sessions, job_id, measured(1, 2.0))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(15):
            monkeypatch.setattr(progress, "_LATEST", progress._latest())  # as a new process has it
            engine.clear_compiled_cache()
            with ThreadPoolExecutor(8) as threads:
                found = list(threads.map(partial(read_latest, sessions, threading.Barrier(8)), [job_id] * 8))
            assert [each[job_id].metric.loss for each in found] == [2.0] * 8
    finally:
        sys.setswitchinterval(interval)


def read_latest(sessions: Sessions, together: threading.Barrier, job_id: str) -> dict[str, progress.Latest]:
    with sessions.begin() as session:
        session.execute(sa.text("SELECT 1"))
        together.wait()
        return progress.latest(session, [job_id])


def test_stream_orders_metrics_and_events_by_time(sessions: Sessions, job_id: str) -> None:
    record_events(
        sessions,
        job_id,
        events.LogEvent(time=NOW + 0.5, level="info", message="hello"),
        measured(1),
        evaluation(2, 1.0),
    )
    kinds = [event.type for event in stream(sessions, job_id) if event.type != "status"]
    assert kinds == ["log", "metric", "evaluation"]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits=st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_reader_with_a_cursor_misses_nothing(sessions: Sessions, job_id: str, limits: list[int]) -> None:
    record_events(sessions, job_id, *map(measured, range(1, 31)), *(evaluation(step, 1.0) for step in (40, 3, 5)))
    whole = stream(sessions, job_id)
    read: list[progress.StreamedEvent] = []
    cursor = Cursor()
    for limit in [*limits, 1000]:
        read += stream(sessions, job_id, cursor, limit)
        cursor = read[-1].cursor if read else cursor
    assert read == whole
