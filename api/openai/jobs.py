"""Fine-tuning jobs of the OpenAI-compatible API."""

import json
import re
from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from api.context import Services
from api.errors import InvalidParameter
from api.http.idempotency import idempotent
from api.jobs import service
from api.jobs.service import Labels
from api.openai.mapping import FineTuningJobRequest, recipe_of
from api.openai.messages import event_object, first_messages
from api.openai.model_names import FineTuned, read_name
from api.openai.schemas import (
    CheckpointList,
    EventList,
    FineTuningJob,
    JobList,
    checkpoint_object,
    job_object,
)
from contract.recipe_errors import parse_recipe
from contract.status import JobStatus
from store import artifacts, files
from store.access.idempotent_requests import IdempotentRequest
from store.access.principal import Principal
from store.errors import JobNotFound, ModelNotFound
from store.jobs import history, jobs, progress
from store.jobs.progress import Cursor
from store.models import Job
from store.paging import page
from store.session import read_snapshot

_EVENT_ID = re.compile(r"ftevent-(?P<job>[0-9a-f]{24})-(?P<seq>\d{1,10})-(?P<step>\d{1,10})-(?P<kind>[em])", re.ASCII)
_CHECKPOINT_ID = re.compile(r"ftckpt_(?P<job>[0-9a-f]{24})_(?P<step>\d{1,10})", re.ASCII)


def create(
    services: Services, who: Principal, once: IdempotentRequest, body: FineTuningJobRequest, force: bool
) -> FineTuningJob:
    """With `force` also a job that cannot fit into memory. Raises InvalidParameter, InputError, ModelNotFound,
    QuotaExceeded, RequestReused, RequestInProgress."""
    fine_tuned = read_name(body.model)
    start_from = None if fine_tuned is None else (_base(services, who, body.model, fine_tuned), fine_tuned.start_from)
    recipe = parse_recipe(json.dumps(recipe_of(body, start_from)))
    request = {"model": body.model, "suffix": body.suffix}
    labels = Labels(body.metadata, request, first_messages=first_messages(body))
    with idempotent(services, once) as turn:
        if turn.made is None:
            return job_object(
                service.create_job(services, who, turn, recipe, force, labels), None, 0, has_results=False
            )
    return get(services, who, turn.made)


def _base(services: Services, who: Principal, name: str, fine_tuned: FineTuned) -> str:
    """The base model of a fine-tuned model. Raises ModelNotFound."""
    with services.sessions.begin() as session:
        try:
            job = jobs.get(session, fine_tuned.job_id, who.scope)
        except JobNotFound as error:
            raise ModelNotFound(name) from error
        if job.model_deleted_at is not None:
            raise ModelNotFound(name)
        return str(job.recipe["model"])


def get(services: Services, who: Principal, job_id: str) -> FineTuningJob:
    """Raises JobNotFound."""
    with read_snapshot(services.sessions) as session:
        return _tell(session, [jobs.get(session, job_id, who.scope)])[0]


def newest(
    services: Services, who: Principal, limit: int, after: str | None, metadata: Mapping[str, str] | None
) -> JobList:
    """`metadata` None lists all jobs, an empty one those without metadata. Raises JobNotFound for an unknown
    `after`."""
    with read_snapshot(services.sessions) as session:
        found = page(jobs.list_jobs(session, limit + 1, after, who.scope, metadata), limit)
        return JobList(data=_tell(session, found.rows), has_more=found.has_more)


def _tell(session: Session, found: Sequence[Job]) -> list[FineTuningJob]:
    ids = [job.id for job in found]
    latest, tokens = progress.latest(session, ids), history.trained_tokens(session, ids)
    with_results = files.with_results(session, ids)
    return [job_object(job, latest.get(job.id), tokens.get(job.id, 0), job.id in with_results) for job in found]


def events(services: Services, who: Principal, job_id: str, limit: int, after: str | None) -> EventList:
    """Newest first. Raises JobNotFound, InvalidParameter."""
    with read_snapshot(services.sessions) as session:
        job = jobs.get(session, job_id, who.scope)
        before = _before(job_id, after) if after else None
        found = page(history.list_latest(session, job_id, before, limit + 1), limit)
        objects = [event_object(job, event) for event in found.rows]
        return EventList(data=objects, has_more=found.has_more)


def _before(job_id: str, event_id: str) -> Cursor:
    """The cursor just before that event."""
    parts = _EVENT_ID.fullmatch(event_id)
    if parts is None or f"job_{parts['job']}" != job_id:
        raise InvalidParameter("after", event_id, "give the id of an event of this job")
    seq, step = int(parts["seq"]), int(parts["step"])
    cursor = Cursor(seq, step - 1) if parts["kind"] == "m" else Cursor(seq - 1, step)
    if max(cursor) >= 2**31:
        raise InvalidParameter("after", event_id, "give the id of an event of this job")
    return cursor


def checkpoints(services: Services, who: Principal, job_id: str, limit: int, after: str | None) -> CheckpointList:
    """Newest first, with the model itself once the job has succeeded. Raises JobNotFound, InvalidParameter."""
    with read_snapshot(services.sessions) as session:
        job = jobs.get(session, job_id, who.scope)
        kinds = ("checkpoint", "adapter") if job.status is JobStatus.SUCCEEDED else ("checkpoint",)
        saved = [each for each in artifacts.list_published(session, job_id) if each.kind in kinds]
        by_step = {each.step or 0: each for each in sorted(saved, key=lambda each: each.kind, reverse=True)}
        kept = sorted(by_step.values(), key=lambda each: each.step or 0, reverse=True)
        if after is not None:
            parts = _CHECKPOINT_ID.fullmatch(after)
            if parts is None or f"job_{parts['job']}" != job_id:
                raise InvalidParameter("after", after, "give the id of a checkpoint of this job")
            kept = [each for each in kept if (each.step or 0) < int(parts["step"])]
        found = page(kept, limit)
        steps = [each.step or 0 for each in found.rows]
        metrics = history.metrics_at(session, job_id, steps)
        evaluations = history.evaluations_at(session, job_id, steps)
        objects = [
            checkpoint_object(job, each, metrics.get(step), evaluations.get(step, {}))
            for each, step in zip(found.rows, steps, strict=True)
        ]
        return CheckpointList(data=objects, has_more=found.has_more)


def cancel(services: Services, who: Principal, once: IdempotentRequest, job_id: str) -> FineTuningJob:
    """Raises JobNotFound, IllegalMove, RequestReused, RequestInProgress; so do those below."""
    service.cancel_job(services, who, once, job_id)
    return get(services, who, job_id)


def pause(services: Services, who: Principal, once: IdempotentRequest, job_id: str) -> FineTuningJob:
    service.pause_job(services, who, once, job_id)
    return get(services, who, job_id)


def resume(services: Services, who: Principal, once: IdempotentRequest, job_id: str) -> FineTuningJob:
    service.resume_job(services, who, once, job_id)
    return get(services, who, job_id)
