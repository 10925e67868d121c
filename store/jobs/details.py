"""Jobs with all that is known of them, as JSON that PostgreSQL writes: building objects of a hundred recipes, only to
write them out again, takes longer than the rest of a list."""

from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.orm import Session

from contract.failure import FailureCode
from store.errors import JobNotFound
from store.models.base import one_of


class JobDetails(NamedTuple):
    id: str
    owner: str
    status: str
    shape: str
    body: str
    """The text of a JSON object, without what the scheduler knows: queue."""
    cluster_wait: dict[str, Any] | None
    """A Wait, of a running job that a cluster has not started."""


def json_time(column: str) -> str:
    return f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"


_PROGRESS = {
    "step": "last.step",
    "total_steps": "total_steps",
    **{name: f"last.{name}" for name in ("epoch", "loss")},
    **{name: f"ends.evaluation -> '{name}'" for name in ("eval_loss", "reward_accuracy", "reward_margin")},
    "best_step": "ends.done -> 'best_step'",
    "stopped_early": "coalesce((ends.done ->> 'stopped_early')::boolean, false)",
    **{name: f"last.{name}" for name in ("tokens_per_second", "progress", "eta_seconds")},
}
_FAILURE = {
    **{name: f"failure -> '{name}'" for name in ("code", "message", "param")},
    "retryable": f"failure ->> 'code' IN ({one_of(code for code in FailureCode if code.retryable)})",
    "log_tail": "log_tail",
}
_TRACKER_STATUS = """
    CASE WHEN tracked.due_at IS NULL THEN CASE WHEN tracked.error IS NULL THEN 'complete' ELSE 'given_up' END
    WHEN tracked.error IS NOT NULL THEN 'retrying'
    WHEN tracked.run IS NOT NULL THEN 'following'
    ELSE 'waiting' END
"""
_TRACKING = {
    "type": "tracked.type",
    "url": "jobs.recipe #>> ARRAY['tracking', tracked.type, 'url']",
    "status": _TRACKER_STATUS,
    **{name: f"tracked.{name}" for name in ("run", "step")},
    "behind": "greatest(0, coalesce(last.step, 0) - tracked.step)",
    "error": "tracked.error",
    "next_attempt_at": f"CASE WHEN tracked.error IS NOT NULL THEN {json_time('tracked.due_at')} END",
}


def json_object(fields: dict[str, str]) -> str:
    pairs = ", ".join(f"'{name}', {value}" for name, value in fields.items())
    return f"json_build_object({pairs})"


_FIELDS = {
    **{name: f"jobs.{name}" for name in ("id", "name", "owner", "status", "requested_action", "priority")},
    "devices": "coalesce(leased.devices, '[]')",
    **{name: f"jobs.{name}" for name in ("attempt", "retries")},
    "not_before": json_time("not_before"),
    **{name: f"jobs.{name}" for name in ("sweep_id", "batch", "worker")},
    **{name: json_time(name) for name in ("created_at", "started_at", "finished_at")},
    **{name: f"jobs.{name}" for name in ("recipe", "command")},
    "progress": f"CASE WHEN last.step IS NOT NULL THEN {json_object(_PROGRESS)} END",
    "tracking": "coalesce(trackers.found, '[]')",
    "failure": f"CASE WHEN failure IS NOT NULL THEN {json_object(_FAILURE)} END",
    "exit_report": "CASE WHEN exit_report::text <> '{}' THEN exit_report END",
}
LAST_METRIC = """
    LEFT JOIN LATERAL (
        SELECT * FROM metrics WHERE job_id = jobs.id AND jobs.attempt > 0 ORDER BY step DESC LIMIT 1
    ) AS last ON true
"""
"""One look into the index for a job that has started, none for another."""


def last_event(kind: str) -> str:
    return f"""(
        SELECT data FROM events WHERE job_id = jobs.id AND type = '{kind}' AND jobs.attempt > 0
        ORDER BY seq DESC LIMIT 1
    ) AS {kind}"""


_DETAILS = f"""
    SELECT jobs.id, owner, status, shape, {json_object(_FIELDS)}::text, cluster_wait
    FROM jobs {LAST_METRIC}
    LEFT JOIN LATERAL (SELECT {last_event("evaluation")}, {last_event("done")}) AS ends ON last.step IS NOT NULL
    LEFT JOIN LATERAL (
        SELECT json_agg(json_build_object('worker', worker, 'number', number) ORDER BY rank, number) AS devices
        FROM leases WHERE job_id = jobs.id
    ) AS leased ON true
    LEFT JOIN LATERAL (
        SELECT json_agg({json_object(_TRACKING)} ORDER BY tracked.type) AS found
        FROM trackings AS tracked WHERE job_id = jobs.id
    ) AS trackers ON true
"""
_ONE = text(f"{_DETAILS} WHERE jobs.id = :id")


def get(session: Session | Connection, job_id: str, owner: str | None = None) -> JobDetails:
    """A job of `owner`, or of any owner with None. Raises JobNotFound."""
    row = session.execute(_ONE, {"id": job_id}).one_or_none()
    if row is None or owner not in (None, row.owner):
        raise JobNotFound(job_id)
    return JobDetails(*row)


def list_jobs(session: Session, limit: int, after: str | None, owner: str | None = None) -> list[JobDetails]:
    """One page of jobs, newest first, of `owner` or of all. `after` is the last id of the page before. Raises
    JobNotFound for an unknown `after`."""
    last = {} if after is None else {"last_id": after, "last_time": _created_at(session, after, owner)}
    page = _page(owner is not None, after is not None)
    return [JobDetails(*row) for row in session.execute(page, {"limit": limit, "owner": owner} | last)]


def _created_at(session: Session, job_id: str, owner: str | None) -> datetime:
    row = session.execute(_POSITION, {"id": job_id}).one_or_none()
    if row is None or owner not in (None, row.owner):
        raise JobNotFound(job_id)
    created_at: datetime = row.created_at
    return created_at


_POSITION = text("SELECT owner, created_at FROM jobs WHERE id = :id")


@lru_cache
def _page(of_owner: bool, goes_on: bool) -> TextClause:
    conditions = ["true"]
    if of_owner:
        conditions.append("owner = :owner")
    if goes_on:
        conditions.append("(created_at, jobs.id) < (:last_time, :last_id)")
    return text(f"{_DETAILS} WHERE {' AND '.join(conditions)} ORDER BY created_at DESC, jobs.id DESC LIMIT :limit")
