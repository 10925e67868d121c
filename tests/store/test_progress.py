import json
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import events
from contract.recipe import Recipe
from contract.status import RequestedAction
from store.errors import StaleAttempt
from store.jobs import actions, jobs, progress
from store.jobs.progress import Cursor
from store.models import Artifact, Job
from store.session import Sessions
from tests.fake_trainer import started
from tests.placing import claim

LEASE = timedelta(seconds=30)
NOW = time.time() + 3600  # after the status events, which have the real time
START = Cursor()


def metric(step: int, loss: float = 1.0) -> events.Metric:
    return events.Metric(
        time=NOW + step,
        step=step,
        epoch=step / 10,
        loss=loss,
        learning_rate=1e-4,
        grad_norm=0.5,
        tokens=100,
        supervised_tokens=40,
        tokens_per_second=250.0,
        memory_bytes=2**33,
        progress=step / 100,
        eta_seconds=9.0,
    )


def evaluation(step: int, loss: float) -> events.Evaluation:
    return events.Evaluation(time=NOW + step, step=step, eval_loss=loss, supervised_tokens=40)


@pytest.fixture
def job_id(sessions: Sessions) -> str:
    recipe = Recipe.model_validate({"model": "m", "dataset": "d.jsonl"})
    with sessions.begin() as session:
        jobs.create(session, recipe)
        job = claim(session, LEASE)
    assert job is not None
    return job.id


def record(sessions: Sessions, job_id: str, *batch: events.Event, attempt: int = 1) -> RequestedAction | None:
    with sessions.begin() as session:
        return progress.record(session, job_id, attempt, batch, LEASE)


def columns(sessions: Sessions, job_id: str, since: int = 0, limit: int = 1000, thin: int | None = None) -> list[int]:
    with sessions.begin() as session:
        return json.loads(progress.curves(session, job_id, None, since, limit, thin) or "")["columns"]["step"]  # type: ignore[no-any-return]


def stream(sessions: Sessions, job_id: str, cursor: Cursor = START, limit: int = 1000) -> list[progress.Happening]:
    with sessions.begin() as session:
        return progress.events_since(session, job_id, cursor, limit)


def test_a_step_told_twice_is_kept_once_as_first_told(sessions: Sessions, job_id: str) -> None:
    record(sessions, job_id, metric(1, 2.0), metric(2, 1.5))
    record(sessions, job_id, metric(2, 9.0), metric(3, 1.2))
    with sessions.begin() as session:
        kept = json.loads(progress.curves(session, job_id, None, 0, 100, None) or "")["columns"]
    assert kept["step"] == [1, 2, 3]
    assert kept["loss"] == [2.0, 1.5, 1.2]


def test_an_attempt_that_starts_earlier_takes_the_place_of_what_another_told(sessions: Sessions, job_id: str) -> None:
    record(sessions, job_id, *(metric(step, 9.0) for step in (1, 2, 3, 4)))
    record(sessions, job_id, started(total=9, resumed=2), metric(3, 1.0))
    with sessions.begin() as session:
        kept = json.loads(progress.curves(session, job_id, None, 0, 100, None) or "")["columns"]
    assert kept["step"] == [1, 2, 3]
    assert kept["loss"] == [9.0, 9.0, 1.0]


def test_what_a_lost_worker_had_not_told_is_told_by_the_next(sessions: Sessions, job_id: str) -> None:
    checkpoint = events.Checkpoint(time=NOW, step=2, path="checkpoints/step-000002", bytes=1)
    record(sessions, job_id, metric(1, 2.0))
    with sessions.begin() as session:
        progress.catch_up(session, job_id, 1, 0, [metric(1, 9.0), metric(2, 1.0), checkpoint], LEASE * 2)
    with sessions.begin() as session:
        assert json.loads(progress.curves(session, job_id, None, 0, 9, None) or "")["columns"]["loss"] == [2.0, 1.0]
        assert [a.path for a in session.scalars(sa.select(Artifact))] == [f"{job_id}/attempt-0/checkpoints/step-000002"]
        assert session.scalar(sa.select(Job.lease_expires_at > sa.func.now() + LEASE * 1.5))
    with pytest.raises(StaleAttempt), sessions.begin() as session:
        progress.catch_up(session, job_id, 2, 1, [metric(3)], LEASE)


def test_a_stale_attempt_tells_nothing(sessions: Sessions, job_id: str) -> None:
    with pytest.raises(StaleAttempt):
        record(sessions, job_id, metric(1), attempt=2)
    assert columns(sessions, job_id) == []


def test_recording_brings_back_the_requested_action(sessions: Sessions, job_id: str) -> None:
    assert record(sessions, job_id) is None
    with sessions.begin() as session:
        actions.cancel(session, job_id)
    assert record(sessions, job_id) == RequestedAction.CANCEL


def test_metrics_are_read_from_a_step_on_and_up_to_a_limit(sessions: Sessions, job_id: str) -> None:
    record(sessions, job_id, *map(metric, range(1, 21)))
    assert columns(sessions, job_id, since=5, limit=3) == [6, 7, 8]


@pytest.mark.parametrize("thin", [2, 7, 20, 100])
def test_downsampling_keeps_the_last_step_and_not_more_than_asked(sessions: Sessions, job_id: str, thin: int) -> None:
    record(sessions, job_id, *map(metric, range(1, 101)))
    steps = columns(sessions, job_id, thin=thin)
    assert steps[-1] == 100
    assert thin / 2 <= len(steps) <= thin


@pytest.mark.parametrize("thin", [None, 5])
def test_no_metrics_are_empty_columns(sessions: Sessions, job_id: str, thin: int | None) -> None:
    with sessions.begin() as session:
        columns = json.loads(progress.curves(session, job_id, None, 0, 10, thin) or "")["columns"]
    assert set(columns) == {*events.Metric.model_fields} - {"type"}
    assert all(column == [] for column in columns.values())


def test_evaluations_are_columns_of_their_own(sessions: Sessions, job_id: str) -> None:
    record(sessions, job_id, evaluation(0, 3.0), metric(1), evaluation(1, 2.0))
    with sessions.begin() as session:
        assert json.loads(progress.curves(session, job_id, None, 0, 9, None) or "")["evaluations"] == {
            "step": [0, 1],
            "eval_loss": [3.0, 2.0],
        }
        assert progress.latest(session, [job_id])[job_id].eval_loss == 2.0


def test_a_checkpoint_becomes_an_artifact_and_the_final_one_the_adapter(sessions: Sessions, job_id: str) -> None:
    mid = events.Checkpoint(time=1, step=5, path="checkpoints/step-000005", bytes=10)
    end = events.Checkpoint(time=2, step=9, path="adapter", bytes=10, final=True)
    record(sessions, job_id, mid, end)
    with sessions.begin() as session:
        found = {artifact.name: artifact.path for artifact in session.scalars(sa.select(Artifact))}
    assert found == {
        "adapter.tar.gz": f"{job_id}/attempt-1/adapter",
        "checkpoint-5.tar.gz": f"{job_id}/attempt-1/checkpoints/step-000005",
    }


def test_what_fp16_tells_is_kept_and_told(sessions: Sessions, job_id: str) -> None:
    overflow = {"grad_norm": None, "loss_scale": 32768.0, "overflow": True, "skipped_steps": 1}
    record(sessions, job_id, metric(1), metric(2).model_copy(update=overflow))
    with sessions.begin() as session:
        kept = json.loads(progress.curves(session, job_id, None, 0, 100, None) or "")["columns"]
    assert {name: kept[name] for name in overflow} == {
        "grad_norm": [0.5, None],
        "loss_scale": [None, 32768.0],
        "overflow": [False, True],
        "skipped_steps": [0, 1],
    }
    told = stream(sessions, job_id)[-1].data
    assert {name: told[name] for name in overflow} == overflow


def sample(step: int, index: int, generated: str = "yes") -> events.Sample:
    return events.Sample(time=NOW + step, step=step, index=index, prompt="?", expected="yes", generated=generated)


def test_the_samples_of_an_evaluation_are_each_there_once_as_last_told(sessions: Sessions, job_id: str) -> None:
    record(sessions, job_id, sample(0, 0, "no"), sample(2, 1, "old"), sample(2, 0), sample(2, 1, "new"))
    with sessions.begin() as session:
        newest = progress.samples(session, job_id, None)
        assert [(each["index"], each["generated"]) for each in newest] == [(0, "yes"), (1, "new")]
        assert [each["generated"] for each in progress.samples(session, job_id, 0)] == ["no"]
        assert progress.samples(session, job_id, 1) == []


def test_a_sample_of_any_characters_at_all_is_kept_and_read(sessions: Sessions, job_id: str) -> None:
    record(sessions, job_id, sample(1, 0, "a\0b \ud800 \N{SNOWMAN}"))
    with sessions.begin() as session:
        assert [each["generated"] for each in progress.samples(session, job_id, 1)] == ["a\ufffdb ? \N{SNOWMAN}"]
    assert stream(sessions, job_id)[-1].data["generated"] == "a\ufffdb ? \N{SNOWMAN}"


def test_how_a_run_ended_is_told_with_its_last_step(sessions: Sessions, job_id: str) -> None:
    done = events.Done(time=NOW, step=9, completed=True, stopped_early=True, best_step=4, train_loss=1.0, eval_loss=1.0)
    record(sessions, job_id, metric(9))
    with sessions.begin() as session:
        assert progress.latest(session, [job_id])[job_id].done == {}
    record(sessions, job_id, done)
    with sessions.begin() as session:
        told = progress.latest(session, [job_id])[job_id].done
    assert (told["stopped_early"], told["best_step"]) == (True, 4)


def test_the_stream_tells_of_metrics_and_events_in_the_order_of_their_times(sessions: Sessions, job_id: str) -> None:
    record(sessions, job_id, events.Log(time=NOW + 0.5, level="info", message="hello"), metric(1), evaluation(2, 1.0))
    kinds = [happening.type for happening in stream(sessions, job_id) if happening.type != "status"]
    assert kinds == ["log", "metric", "evaluation"]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limits=st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_a_reader_that_comes_back_with_its_cursor_misses_nothing_and_gets_nothing_twice(
    sessions: Sessions, job_id: str, limits: list[int]
) -> None:
    record(sessions, job_id, *map(metric, range(1, 31)), *(evaluation(step, 1.0) for step in (40, 3, 5)))
    whole = stream(sessions, job_id)
    read: list[progress.Happening] = []
    cursor = Cursor()
    for limit in [*limits, 1000]:
        read += stream(sessions, job_id, cursor, limit)
        cursor = read[-1].cursor if read else cursor
    assert read == whole
