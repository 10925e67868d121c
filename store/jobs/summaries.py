"""Jobs as a live table shows them: one line each, and what has changed since a look."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from store.jobs.details import LAST_METRIC, json_object, json_time, last_event
from store.jobs.loss_curve import LOSS_CURVE


class Summary(NamedTuple):
    id: str
    owner: str
    status: str
    body: str
    """The text of a JSON object, without what the scheduler knows: queue and devices."""
    cluster_wait: dict[str, Any] | None = None
    """A Wait, of a running job that a cluster has not started."""


class Changes(NamedTuple):
    position: int
    """Where the next look begins."""
    summaries: list[Summary]
    deleted: list[tuple[str, str]]
    """Id and owner."""
    devices: dict[str, list[str]]
    """The leased devices of each job, as WORKER:NUMBER."""


_FIELDS = {
    **{name: f"jobs.{name}" for name in ("id", "name", "owner", "status", "requested_action", "priority")},
    "model": "named.model",
    "dataset": "coalesce(named.dataset ->> 'filename', named.dataset ->> 'path')",
    **{name: json_time(name) for name in ("created_at", "started_at", "finished_at")},
    **{name: f"jobs.{name}" for name in ("attempt", "retries")},
    "step": "last.step",
    "total_steps": "total_steps",
    **{name: f"last.{name}" for name in ("progress", "eta_seconds", "loss")},
    **{name: f"ends.evaluation -> '{name}'" for name in ("eval_loss", "reward_accuracy", "reward_margin")},
    "losses": f"coalesce(CASE WHEN finished_at IS NULL THEN {LOSS_CURVE} ELSE loss_curve END, '{{}}')",
    "failure_code": "failure ->> 'code'",
    "failure_message": "failure ->> 'message'",
    "sweep_id": "sweep_id",
    "tags": "coalesce(tags, '{}')",
}
# A recipe is read once: each operator on it would read it again.
_SUMMARY = f"""
    SELECT 'job', jobs.id, owner, status, {json_object(_FIELDS)}::text, cluster_wait
    FROM jobs CROSS JOIN LATERAL json_to_record(recipe) AS named (model text, dataset json) {LAST_METRIC}
    LEFT JOIN LATERAL (SELECT {last_event("evaluation")}) AS ends ON last.step IS NOT NULL
"""
_LOOK = """
    SELECT 'position', NULL, NULL, NULL, pg_snapshot_xmin(pg_current_snapshot())::text, NULL::jsonb
    UNION ALL SELECT 'lease', job_id, NULL, NULL, worker || ':' || number, NULL FROM leases
    UNION ALL
"""
# What has another cluster's number, after a restore, was not changed since.
_NEW = "changed >= :since AND changed < pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
_CHANGES = text(
    f"{_LOOK} SELECT 'deleted', id, owner, NULL, NULL, NULL FROM deleted_jobs WHERE {_NEW} "
    f"UNION ALL {_SUMMARY} WHERE {_NEW}"
)
_OPEN = text(f"{_LOOK} {_SUMMARY} WHERE finished_at IS NULL")
_NEWEST = text(
    f"""{_SUMMARY} WHERE jobs.id IN (
        (SELECT id FROM jobs WHERE owner = coalesce(:owner, owner) ORDER BY created_at DESC, id DESC LIMIT :limit)
        UNION SELECT id FROM jobs WHERE finished_at IS NULL AND owner = coalesce(:owner, owner)
    ) ORDER BY created_at DESC, jobs.id DESC"""
)
_THESE = text(f"{_SUMMARY} WHERE jobs.id = ANY(:ids)")


def read_changes(connection: Connection, since: int | None) -> Changes:
    """What has changed since the position `since`, found by an index; with None all jobs that have not ended."""
    rows = connection.execute(_CHANGES, {"since": since}) if since is not None else connection.execute(_OPEN)
    changes = Changes(0, [], [], defaultdict(list))
    for kind, job_id, owner, status, body, cluster_wait in rows:
        match kind:
            case "job":
                changes.summaries.append(Summary(job_id, owner, status, body, cluster_wait))
            case "deleted":
                changes.deleted.append((job_id, owner))
            case "lease":
                changes.devices[job_id].append(body)
            case "position":
                changes = changes._replace(position=int(body))
    for devices in changes.devices.values():
        devices.sort()
    return changes


def list_newest(connection: Connection, owner: str | None, limit: int) -> list[Summary]:
    """The newest `limit` jobs and all that have not ended, newest first, of `owner` or of all."""
    return [Summary(*row[1:]) for row in connection.execute(_NEWEST, {"owner": owner, "limit": limit})]


def get_summaries(connection: Connection, job_ids: Collection[str]) -> list[Summary]:
    return [Summary(*row[1:]) for row in connection.execute(_THESE, {"ids": list(job_ids)})]
