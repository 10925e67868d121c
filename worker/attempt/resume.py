"""Finds what an attempt can resume from, and records what the workers of the earlier attempts could not."""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.orm import Session

from contract.events import DoneEvent, Event
from contract.run_dir import RunDir, latest_state, prune_states
from store.jobs import jobs, progress
from worker.attempt.context import Attempt
from worker.attempt.tail import Tail

KEPT_STATES = 2
"""Training checkpoints of the earlier attempts that are kept, in case the newest is damaged."""


def find_state(attempt: Attempt) -> Path | None:
    """The furthest complete training checkpoint of the earlier attempts. They save nothing more from now on."""
    heartbeat = attempt.make_heartbeat()
    for run in attempt.earlier_runs:
        if run.path.is_dir():
            run.superseded.touch()
    state, damaged = latest_state(attempt.earlier_runs, heartbeat)
    for path in damaged:
        _warn_of_damage(attempt, path)
    prune_states(attempt.earlier_runs, KEPT_STATES, heartbeat)
    return state


def _warn_of_damage(attempt: Attempt, state: Path) -> None:
    run = state.parent.parent
    message = f"the training checkpoint {run.name}/{state.name} is damaged; the run resumes from an earlier one"

    def warn(session: Session) -> None:
        job = jobs.get(session, attempt.part.job_id)
        jobs.record_event(session, job, "log", {"level": "warning", "message": message})

    attempt.transact(warn)


def catch_up(attempt: Attempt, state: Path | None) -> bool:
    """Records what the earlier trainers reported after their worker was lost. Returns whether one completed the job.

    Call it after `find_state`: whatever `state` contains was reported before it was saved. It may come from an attempt
    before the latest; what that one reported is recorded last.
    """
    runs = {number: run for number, run in enumerate(attempt.earlier_runs, start=1) if run.events.exists()}
    saved = [number for number, run in runs.items() if state is not None and state.is_relative_to(run.path)]
    return any(_record_again(attempt, number, runs[number]) for number in dict.fromkeys([*list(runs)[-1:], *saved]))


def _record_again(attempt: Attempt, number: int, run: RunDir) -> bool:
    """Records all events of an earlier attempt. Returns whether its last ones say that the job is complete."""
    tail = Tail(run.events)
    completed = False
    while batch := tail.read():
        _record_batch(attempt, number, batch)
        completed = any(isinstance(event, DoneEvent) and event.completed for event in batch)
    return completed


def _record_batch(attempt: Attempt, number: int, batch: Sequence[Event]) -> None:
    part, lease = attempt.part, attempt.settings.lease
    attempt.transact(lambda session: progress.catch_up(session, part.job_id, part.attempt, number, batch, lease))
