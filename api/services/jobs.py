"""Takes jobs, tells of them, and passes on what their owners wish."""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

from api.idempotency import Settle, once, with_body
from api.schemas.jobs import JobOut, JobPage, job_out
from api.services.fit import refuse_what_cannot_fit
from api.services.moment import one_moment
from api.settings import ApiSettings
from api.work import examples_to_train
from contract.base_model import check_adapter, weight_shapes
from contract.earlier_adapter import check_earlier_adapter
from contract.failure import FailureReason, InputError
from contract.locate import locate_dataset, locate_model
from contract.machine import check_machines, unwise
from contract.quote import cut
from contract.recipe import Recipe
from contract.recipe_errors import read_recipe
from contract.status import JobStatus
from dataset.child import Children
from dataset.read import read_examples
from store import audit, broker, jobs, leases, progress, quotas, schedule, wishes, workers
from store.earlier_adapter import locate_earlier_adapter
from store.models import Job
from store.plan import Wait
from store.principal import Principal
from store.requests import Asked
from store.session import Sessions

log = logging.getLogger(__name__)

_JOB_ID = re.compile(r"job_[0-9a-f]{24}")


def submit(
    sessions: Sessions,
    publisher: Celery,
    settings: ApiSettings,
    children: Children,
    who: Principal,
    asked: Asked,
    body: bytes,
    force: bool,
) -> JobOut:
    """The job of a recipe; with `force` also of one that cannot fit into memory. Raises InputError, QuotaExceeded,
    RequestReused, StillAtWork."""
    recipe = read_recipe(body)

    def make(settle: Settle) -> JobOut:
        return create(sessions, publisher, settings, children, who, recipe, settle, force=force)

    return once(sessions, with_body(asked, body), make, partial(get, sessions, who))


def create(
    sessions: Sessions,
    publisher: Celery,
    settings: ApiSettings,
    children: Children,
    who: Principal,
    recipe: Recipe,
    settle: Settle,
    tags: Mapping[str, str] | None = None,
    asked: Mapping[str, Any] | None = None,
    force: bool = False,
) -> JobOut:
    """Checks a recipe as far as can be done without training, stores it, and wakes a worker. `tags` and `asked` as the
    columns of a job; with `force` also what cannot fit into memory. Raises InputError, QuotaExceeded."""
    with sessions.begin() as session:  # again below: but what is too much is told before all rows are read
        quotas.check_queue(session, who.owner)
    with sessions.begin() as session:
        machines = workers.machines(session)
    check_machines(recipe, machines)
    recipe, rows = check(sessions, settings, who, recipe)
    if not force:
        refuse_what_cannot_fit(sessions, settings, children, who, recipe, rows, machines)
    examples = examples_to_train(recipe, rows)
    with sessions.begin() as session:
        quotas.check_queue(session, who.owner)
        seconds = jobs.expected_seconds(session, recipe, examples)
        job = jobs.create(
            session, recipe, who.owner, unwise(recipe, machines), examples, seconds, tags=tags, asked=asked
        )
        audit.record(session, who, "job.create", job.id)
        settle(session, job.id)
        taken = _tell(session, who, [job])[0]
    _look(publisher)
    return taken


def _look(publisher: Celery) -> None:
    try:
        broker.look(publisher)
    except OperationalError as error:
        # What is to be done is in the rows: the workers look at them by themselves, only later.
        log.warning("no wake-up for a job that waits: %s", error)


def check(sessions: Sessions, settings: ApiSettings, who: Principal, recipe: Recipe) -> tuple[Recipe, int]:
    """The recipe with its dataset's digest, and how many examples that has. Raises InputError: no such file or folder,
    a bad row, unmatched modules."""
    model = locate_model(recipe.model, settings.models, settings.allowed_paths)
    shapes = weight_shapes(model) if model else None
    if shapes is not None:
        check_adapter(recipe.adapter, shapes)
    if recipe.adapter.start_from is not None:
        earlier = locate_earlier_adapter(sessions, settings.runs, recipe.adapter.start_from, who.scope)
        if shapes is not None:  # else the trainer checks it, when it has the model
            check_earlier_adapter(earlier, shapes, recipe.model)
    given = recipe.dataset
    path = locate_dataset(given.path, settings.dataset_folders)
    # Of the very bytes that are checked: the file may change meanwhile.
    digest = hashlib.sha256()
    examples = read_examples(path, given.format, given.columns, largest=settings.largest_dataset, sha256=digest)
    rows = sum(1 for _ in examples)
    sha256 = digest.hexdigest()
    if given.sha256 not in (None, sha256):
        message = f"dataset.sha256: got {given.sha256}; the file {cut(given.path, 200)} has {sha256}"
        raise InputError(FailureReason.DATASET_CHANGED, message, "dataset.sha256")
    return recipe.model_copy(update={"dataset": given.model_copy(update={"sha256": sha256})}), rows


def get(sessions: Sessions, who: Principal, job_id: str) -> JobOut:
    """Raises JobNotFound."""
    with one_moment(sessions) as session:
        return _tell(session, who, [jobs.get(session, job_id, who.scope)])[0]


def newest(sessions: Sessions, who: Principal, limit: int, after: str | None, owner: str | None = None) -> JobPage:
    """Those of `owner`, where an admin asks for them. Raises JobNotFound for an unknown `after`."""
    with one_moment(sessions) as session:
        found = jobs.newest(session, limit + 1, after, who.scope or owner)
        page = _tell(session, who, found[:limit])
    return JobPage(data=page, has_more=len(found) > limit)


def _tell(session: Session, who: Principal, found: Sequence[Job]) -> list[JobOut]:
    ids = [job.id for job in found]
    queued = [job for job in found if job.status is JobStatus.QUEUED]
    waits = _outlook(session, who, queued) if queued else {}
    latest, taken = progress.latest(session, ids), leases.of_jobs(session, ids)
    return [job_out(job, latest.get(job.id), waits.get(job.id), taken.get(job.id, [])) for job in found]


def _outlook(session: Session, who: Principal, queued: Sequence[Job]) -> dict[str, Wait]:
    """What they wait for."""
    waits = schedule.outlook(session, queued)
    return waits if who.admin else without_others(session, waits, who.owner)


def without_others(session: Session, waits: Mapping[str, Wait], owner: str) -> dict[str, Wait]:
    """Without the names of jobs that are not `owner`'s."""
    named = {job_id for wait in waits.values() for job_id in _JOB_ID.findall(wait.why)}
    own = jobs.owned(session, named, owner)
    return {
        job_id: replace(wait, why=_JOB_ID.sub(lambda found: found[0] if found[0] in own else "another's job", wait.why))
        for job_id, wait in waits.items()
    }


def cancel(sessions: Sessions, who: Principal, job_id: str, force: bool) -> JobOut:
    """Raises JobNotFound, IllegalMove."""
    with sessions.begin() as session:
        job = wishes.cancel(session, job_id, who.scope, force=force)
        audit.record(session, who, "job.cancel", job_id)
        return _tell(session, who, [job])[0]


def pause(sessions: Sessions, who: Principal, job_id: str) -> JobOut:
    """Raises JobNotFound, IllegalMove."""
    with sessions.begin() as session:
        job = wishes.pause(session, job_id, who.scope)
        audit.record(session, who, "job.pause", job_id)
        return _tell(session, who, [job])[0]


def resume(sessions: Sessions, publisher: Celery, who: Principal, job_id: str) -> JobOut:
    """Raises JobNotFound, IllegalMove."""
    with sessions.begin() as session:
        asked = wishes.resume(session, job_id, who.scope)
        audit.record(session, who, "job.resume", job_id)
        job = _tell(session, who, [asked])[0]
    _look(publisher)
    return job


def retry(sessions: Sessions, publisher: Celery, who: Principal, job_id: str) -> JobOut:
    """Raises JobNotFound, IllegalMove."""
    with sessions.begin() as session:
        asked = wishes.retry(session, job_id, who.scope)
        audit.record(session, who, "job.retry", job_id)
        job = _tell(session, who, [asked])[0]
    _look(publisher)
    return job
