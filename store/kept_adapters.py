"""Deletes saved adapters beyond a recipe's checkpointing.keep_adapters."""

from sqlalchemy import CompoundSelect, Select, func, select, union
from sqlalchemy.orm import Session

from contract.status import TERMINAL
from store import artifacts
from store.models import Export, Job, JobEvaluation, Push


def delete_older(session: Session, job_id: str) -> None:
    """Deletes the job's published checkpoints but those of as many of the newest steps as its recipe keeps, the one
    with the best evaluation, and those that a waiting or running job, export, evaluation or push reads."""
    keep = session.scalar(select(Job.recipe["checkpointing"]["keep_adapters"].as_integer()).where(Job.id == job_id))
    if keep is None:
        return
    session.execute(select(Job.id).where(Job.id == job_id).with_for_update())  # hold_earlier holds the same row
    saved = [each for each in artifacts.list_published(session, job_id) if each.kind in ("adapter", "checkpoint")]
    # The last checkpoint may have the weights of the adapter.
    newest = sorted({each.step or 0 for each in saved})[-keep:]
    best = artifacts.best(saved)
    in_use = set(session.scalars(_starts(job_id))) | set(session.scalars(_read(job_id)))
    old = [
        each
        for each in saved
        if each.kind == "checkpoint" and each.step not in newest and each is not best and each.name not in in_use
    ]
    if old:
        artifacts.delete(session, old)


def _starts(job_id: str) -> Select[str]:
    """Names of the artifacts from which other jobs are to start."""
    name = func.split_part(Job.recipe["adapter"]["start_from"].as_string(), "/", 2).concat(".tar")
    return select(name).where(Job.start_from_job == job_id, Job.status.not_in(TERMINAL))


def _read(job_id: str) -> CompoundSelect[str]:
    """Names of the artifacts that exports, evaluations and pushes read."""
    return union(
        *(
            select(table.source).where(table.job_id == job_id, table.status.in_(["queued", "running"]))
            for table in (Export, JobEvaluation)
        ),
        select(Push.artifact).where(Push.job_id == job_id, Push.due_at.is_not(None)),
    )
