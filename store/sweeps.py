"""Sweeps: groups of jobs that were submitted together, with the results of each."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, select, text
from sqlalchemy.orm import Session

from contract import ids
from contract.status import JobStatus
from store.errors import SweepNotFound
from store.models import Job, Sweep
from store.paging import newest_first


class SweepRun(NamedTuple):
    """A job of a sweep, with its latest results."""

    id: str
    status: JobStatus
    values: Mapping[str, Any]
    """By the dotted path of the recipe's field."""
    loss: float | None
    """Loss of the last step; None before the first."""
    eval_loss: float | None
    """Loss of the last evaluation; None before the first step."""
    reward_accuracy: float | None
    """Of the last evaluation, as is reward_margin; None for a method without rewards."""
    reward_margin: float | None
    step: int | None
    total_steps: int | None


def create(session: Session, owner: str, name: str | None, fields: Sequence[str]) -> Sweep:
    sweep = Sweep(id=ids.new_id(ids.SWEEP), owner=owner, name=name, fields=list(fields))
    session.add(sweep)
    session.flush()
    return sweep


def get(session: Session, sweep_id: str, owner: str | None = None) -> Sweep:
    """A sweep of `owner`, or of any owner with None. Raises SweepNotFound."""
    sweep = session.get(Sweep, sweep_id)
    if sweep is None or owner not in (None, sweep.owner):
        raise SweepNotFound(sweep_id)
    return sweep


def list_sweeps(session: Session, limit: int, after: str | None, owner: str | None = None) -> list[Sweep]:
    """One page of sweeps, newest first, of `owner` or of all. `after` is the last id of the page before. Raises
    SweepNotFound for an unknown `after`."""
    query = select(Sweep)
    if owner is not None:
        query = query.where(Sweep.owner == owner)
    last = None if after is None else get(session, after, owner)
    return list(session.scalars(newest_first(query, Sweep, limit, last)))


# In SQL, where one look into the index for each run is plain.
_RUNS = text(
    """
    SELECT sweep_id, id, status, sweep_values, last.loss, last.step, total_steps, evaluation
    FROM jobs LEFT JOIN LATERAL
        (SELECT step, loss FROM metrics WHERE job_id = id ORDER BY step DESC LIMIT 1) AS last ON true
    LEFT JOIN LATERAL
        (SELECT data AS evaluation FROM events WHERE job_id = id AND type = 'evaluation' ORDER BY seq DESC LIMIT 1)
        AS evaluated ON last.step IS NOT NULL
    WHERE sweep_id = ANY(:ids) ORDER BY sweep_id, created_at, id
    """
)


def runs(session: Session, sweep_ids: Collection[str]) -> dict[str, list[SweepRun]]:
    """The jobs of each sweep, in the order they were written, by one query."""
    found: dict[str, list[SweepRun]] = {sweep_id: [] for sweep_id in sweep_ids}
    for row in session.execute(_RUNS, {"ids": list(sweep_ids)}):
        evaluation = row.evaluation or {}
        scores = (_finite(evaluation.get(name)) for name in ("eval_loss", "reward_accuracy", "reward_margin"))
        results = (_finite(row.loss), *scores, row.step, row.total_steps)
        found[row.sweep_id].append(SweepRun(row.id, JobStatus(row.status), row.sweep_values, *results))
    return found


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def best(found: Collection[SweepRun]) -> str | None:
    """The id of the best run among those that are running or have succeeded; None where none of these has a loss.

    Rewards decide first: the highest accuracy, then the largest margin. Where no run has rewards the lowest evaluation
    loss decides, and where none was evaluated the lowest loss. A loss of compared answers means something else with
    each `method.type`, `loss` and `beta`.
    """
    candidates = [run for run in found if run.status in (JobStatus.RUNNING, JobStatus.SUCCEEDED)]
    by_rewards = [
        ((run.reward_accuracy, run.reward_margin or 0.0), run.id)
        for run in candidates
        if run.reward_accuracy is not None
    ]
    if by_rewards:
        return max(by_rewards, key=lambda each: each[0])[1]
    by_evaluation = [(run.eval_loss, run.id) for run in candidates if run.eval_loss is not None]
    by_loss = [(run.loss, run.id) for run in candidates if run.loss is not None]
    ranked = by_evaluation or by_loss
    return min(ranked, key=lambda each: each[0])[1] if ranked else None


def lock_jobs(session: Session, sweep_id: str) -> list[Job]:
    """The jobs of a sweep, read afresh and locked until the transaction ends."""
    # By id, so that two such transactions wait for each other at the first row.
    its = select(Job).where(Job.sweep_id == sweep_id).order_by(Job.id)
    return list(session.scalars(its.with_for_update(), execution_options={"populate_existing": True}))


def delete_if_empty(session: Session, sweep_id: str) -> None:
    """Deletes a sweep whose last job was deleted."""
    # The lock lets one of two transactions that delete the last two jobs see what the other has deleted.
    session.execute(select(Sweep.id).where(Sweep.id == sweep_id).with_for_update())
    session.execute(_DELETE_EMPTY, {"its_id": sweep_id}, execution_options={"synchronize_session": False})


_DELETE_EMPTY = delete(Sweep).where(
    Sweep.id == bindparam("its_id"), ~select(Job.id).where(Job.sweep_id == bindparam("its_id")).exists()
)
