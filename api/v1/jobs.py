"""Fine-tuning jobs, as OpenAI's wire has them."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial

from celery import Celery
from sqlalchemy.orm import Session

from api.errors import InvalidParameter
from api.idempotency import Settle, once, with_body
from api.services import jobs as service
from api.services.moment import one_moment
from api.settings import ApiSettings
from api.v1.answers import (
    CheckpointList,
    EventList,
    FineTuningJob,
    JobList,
    checkpoint_object,
    event_object,
    job_object,
)
from api.v1.asked import JobAsked, recipe_of
from api.v1.model_names import FineTuned, read_name
from contract.recipe_errors import read_recipe
from dataset.sandbox import DatasetSandbox
from storage.backends import Storage
from store import artifacts
from store.access.idempotent_requests import Asked
from store.access.principal import Principal
from store.errors import JobNotFound, ModelNotFound
from store.jobs import history, jobs, progress
from store.jobs.progress import Cursor
from store.models import Job
from store.session import Sessions

_EVENT_ID = re.compile(r"ftevent-(?P<job>[0-9a-f]{24})-(?P<seq>\d{1,10})-(?P<step>\d{1,10})-(?P<kind>[em])", re.ASCII)
_CHECKPOINT_ID = re.compile(r"ftckpt_(?P<job>[0-9a-f]{24})_(?P<step>\d{1,10})", re.ASCII)


def create(
    sessions: Sessions,
    publisher: Celery,
    settings: ApiSettings,
    storage: Storage,
    sandbox: DatasetSandbox,
    who: Principal,
    once_asked: Asked,
    asked: JobAsked,
    force: bool,
) -> FineTuningJob:
    """With `force` also one that cannot fit into memory. Raises InvalidParameter, InputError, ModelNotFound,
    QuotaExceeded, RequestReused, StillAtWork."""
    fine_tuned = read_name(asked.model)
    start_from = None if fine_tuned is None else (_base(sessions, who, asked.model, fine_tuned), fine_tuned.start_from)
    recipe = read_recipe(json.dumps(recipe_of(asked, start_from)))
    told = {"model": asked.model, "suffix": asked.suffix}

    def make(settle: Settle) -> FineTuningJob:
        job = service.create(
            sessions, publisher, settings, storage, sandbox, who, recipe, settle, asked.metadata, told, force
        )
        return get(sessions, who, job.id)

    return once(sessions, with_body(once_asked, asked.model_dump_json().encode()), make, partial(get, sessions, who))


def _base(sessions: Sessions, who: Principal, name: str, fine_tuned: FineTuned) -> str:
    """The base model of a fine-tuned one. Raises ModelNotFound."""
    with sessions.begin() as session:
        try:
            job = jobs.get(session, fine_tuned.job_id, who.scope)
        except JobNotFound as error:
            raise ModelNotFound(name) from error
        if job.model_deleted_at is not None:
            raise ModelNotFound(name)
        return str(job.recipe["model"])


def get(sessions: Sessions, who: Principal, job_id: str) -> FineTuningJob:
    """Raises JobNotFound."""
    with one_moment(sessions) as session:
        return _tell(session, [jobs.get(session, job_id, who.scope)])[0]


def newest(
    sessions: Sessions, who: Principal, limit: int, after: str | None, metadata: Mapping[str, str] | None
) -> JobList:
    """`metadata` None lists all; an empty one those without any. Raises JobNotFound for an unknown `after`."""
    with one_moment(sessions) as session:
        found = jobs.newest(session, limit + 1, after, who.scope, metadata)
        return JobList(data=_tell(session, found[:limit]), has_more=len(found) > limit)


def _tell(session: Session, found: Sequence[Job]) -> list[FineTuningJob]:
    ids = [job.id for job in found]
    latest, tokens = progress.latest(session, ids), history.trained_tokens(session, ids)
    return [job_object(job, latest.get(job.id), tokens.get(job.id, 0)) for job in found]


def events(sessions: Sessions, who: Principal, job_id: str, limit: int, after: str | None) -> EventList:
    """Newest first. Raises JobNotFound, InvalidParameter."""
    with one_moment(sessions) as session:
        job = jobs.get(session, job_id, who.scope)
        found = history.newest(session, job_id, _before(job_id, after) if after else None, limit + 1)
        told = [event_object(job_id, happening, job.total_steps) for happening in found[:limit]]
        return EventList(data=told, has_more=len(found) > limit)


def _before(job_id: str, event_id: str) -> Cursor:
    """What a reader has who has all that happened before that event."""
    parts = _EVENT_ID.fullmatch(event_id)
    if parts is None or f"job_{parts['job']}" != job_id:
        raise InvalidParameter("after", event_id, "give the id of an event of this job")
    seq, step = int(parts["seq"]), int(parts["step"])
    cursor = Cursor(seq, step - 1) if parts["kind"] == "m" else Cursor(seq - 1, step)
    if max(cursor) >= 2**31:
        raise InvalidParameter("after", event_id, "give the id of an event of this job")
    return cursor


def checkpoints(sessions: Sessions, who: Principal, job_id: str, limit: int, after: str | None) -> CheckpointList:
    """Newest first. Raises JobNotFound, InvalidParameter."""
    with one_moment(sessions) as session:
        job = jobs.get(session, job_id, who.scope)
        kept = [each for each in artifacts.of_job(session, job_id) if each.kind == "checkpoint"]
        kept.sort(key=lambda each: each.step or 0, reverse=True)
        if after is not None:
            parts = _CHECKPOINT_ID.fullmatch(after)
            if parts is None or f"job_{parts['job']}" != job_id:
                raise InvalidParameter("after", after, "give the id of a checkpoint of this job")
            kept = [each for each in kept if (each.step or 0) < int(parts["step"])]
        page = kept[:limit]
        metrics = history.metrics_at(session, job_id, [each.step or 0 for each in page])
        told = [checkpoint_object(job, each, metrics.get(each.step or 0)) for each in page]
        return CheckpointList(data=told, has_more=len(kept) > limit)


def cancel(sessions: Sessions, who: Principal, asked: Asked, job_id: str) -> FineTuningJob:
    """Raises JobNotFound, IllegalMove, RequestReused, StillAtWork; so do those below."""
    service.cancel(sessions, who, asked, job_id, force=False)
    return get(sessions, who, job_id)


def pause(sessions: Sessions, who: Principal, asked: Asked, job_id: str) -> FineTuningJob:
    service.pause(sessions, who, asked, job_id)
    return get(sessions, who, job_id)


def resume(sessions: Sessions, publisher: Celery, who: Principal, asked: Asked, job_id: str) -> FineTuningJob:
    service.resume(sessions, publisher, who, asked, job_id)
    return get(sessions, who, job_id)
