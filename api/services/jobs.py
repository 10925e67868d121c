"""Takes jobs, tells of them, and passes on what their owners wish."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

from api.idempotency import Settle, once, once_by_key, with_body
from api.schemas.jobs import JobOut, JobPage, job_out
from api.services.earlier import earlier_of
from api.services.examples import Examples, examples_of
from api.services.fit import refuse_what_cannot_fit
from api.services.moment import one_moment
from api.services.trial import try_dataset
from api.settings import ApiSettings
from api.turns import Turns
from contract.failure import FailureReason, InputError, told_of
from contract.locate import locate_model
from contract.machine import check_machines, unwise
from contract.model.earlier_adapter import check_earlier_adapter
from contract.model.folder import LoadedBase, loaded_base
from contract.model.target_modules import Targets, check_adapter, left_out_words
from contract.order import workload
from contract.recipe import Adapter, Dataset, Recipe
from contract.recipe_errors import read_recipe
from contract.shortfalls import shortfalls
from contract.status import JobStatus
from dataset.sandbox import DatasetSandbox
from runtime import broker
from storage.backends import Storage
from store import datasets, scheduler
from store.access import audit, quotas
from store.access.idempotent_requests import Asked
from store.access.principal import Principal
from store.errors import DatasetNotFound
from store.jobs import actions, jobs, progress
from store.models import Job
from store.scheduling import leases, workers
from store.scheduling.planner import Wait
from store.session import Sessions

log = logging.getLogger(__name__)

_JOB_ID = re.compile(r"job_[0-9a-f]{24}")
_MATCHING = Turns(most_waiting=7, patience=20.0)
"""Of recipes whose target_modules is a regular expression."""


def submit(
    sessions: Sessions,
    publisher: Celery,
    settings: ApiSettings,
    storage: Storage,
    sandbox: DatasetSandbox,
    who: Principal,
    asked: Asked,
    body: bytes,
    force: bool,
) -> JobOut:
    """The job of a recipe; with `force` also of one that cannot fit into memory. Raises InputError, QuotaExceeded,
    RequestReused, StillAtWork."""
    recipe = read_recipe(body)

    def make(settle: Settle) -> JobOut:
        return create(sessions, publisher, settings, storage, sandbox, who, recipe, settle, force=force)

    return once(sessions, with_body(asked, body), make, partial(get, sessions, who))


def create(
    sessions: Sessions,
    publisher: Celery,
    settings: ApiSettings,
    storage: Storage,
    sandbox: DatasetSandbox,
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
    checked = check(sessions, settings, storage, sandbox, who, recipe)
    recipe, files = checked.recipe, (checked.training_file, checked.validation_file)
    if not force:
        refuse_what_cannot_fit(sessions, settings, sandbox, who, recipe, checked.rows, machines)
    examples = workload(recipe, checked.rows).examples
    warnings = [*unwise(recipe, machines), *shortfalls(recipe, checked.rows), *checked.warnings]
    with sessions.begin() as session:
        quotas.check_queue(session, who.owner)
        _hold(session, who, files)
        seconds = jobs.expected_seconds(session, recipe, examples)
        job = jobs.create(session, recipe, who.owner, warnings, examples, seconds, *files, tags=tags, asked=asked)
        audit.record(session, who, "job.create", job.id)
        settle(session, job.id)
        taken = _tell(session, who, [job])[0]
    _look(publisher)
    return taken


def _hold(session: Session, who: Principal, files: Iterable[str | None]) -> None:
    """They may have been deleted since they were read. Raises InputError."""
    for dataset_id in sorted(filter(None, files)):
        try:
            datasets.hold(session, dataset_id, who.scope)
        except DatasetNotFound as error:
            raise InputError(FailureReason.DATASET_NOT_FOUND, f"dataset: {error}", "dataset") from error


def _look(publisher: Celery) -> None:
    try:
        broker.look(publisher)
    except OperationalError as error:
        # What is to be done is in the rows: the workers look at them by themselves, only later.
        log.warning("no wake-up for a job that waits: %s", error)


@dataclass(frozen=True)
class Checked:
    recipe: Recipe
    """With the digests of its datasets."""
    rows: int
    """Examples of its dataset."""
    training_file: str | None
    """The dataset's id, where it names one."""
    validation_file: str | None
    warnings: list[str]


def check(
    sessions: Sessions, settings: ApiSettings, storage: Storage, sandbox: DatasetSandbox, who: Principal, recipe: Recipe
) -> Checked:
    """Raises InputError: no such file or folder, a bad row, unmatched modules, a row that the model cannot read."""
    model = locate_model(recipe.model, settings.folders)
    base = loaded_base(model) if model else None  # else the trainer checks it, when it has the model
    warnings: list[str] = []
    if recipe.adapter.start_from is not None:
        with earlier_of(sessions, settings, who, recipe.adapter.start_from) as earlier:
            if base is not None:
                check_earlier_adapter(earlier, base.shapes, recipe.model)
    elif base is not None:
        warnings = left_out_words(_check_adapter(who, recipe.adapter, base))

    def examples(given: Dataset) -> Examples:
        found = examples_of(sessions, settings, storage, sandbox, who, given)
        if model is not None and base is not None:
            try_dataset(sessions, settings, sandbox, model, base.shapes, found.dataset)
        return found

    training = examples(recipe.dataset)
    evaluation = recipe.evaluation
    validation = None
    if evaluation.dataset is not None:
        with told_of("evaluation.dataset"):
            validation = examples(evaluation.dataset)
        evaluation = evaluation.model_copy(update={"dataset": validation.dataset})
    return Checked(
        recipe.model_copy(update={"dataset": training.dataset, "evaluation": evaluation}),
        training.count,
        training.file_id,
        validation.file_id if validation else None,
        warnings,
    )


def _check_adapter(who: Principal, adapter: Adapter, base: LoadedBase) -> Targets:
    """Raises InputError, TooManyRequests."""
    expression = isinstance(adapter.target_modules, str) and adapter.target_modules != "all-linear"
    with _MATCHING.of(who.owner) if expression else nullcontext():
        return check_adapter(adapter, base.shapes, base.kind)


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
    waits = scheduler.outlook(session, queued)
    return waits if who.admin else without_others(session, waits, who.owner)


def without_others(session: Session, waits: Mapping[str, Wait], owner: str) -> dict[str, Wait]:
    """Without the names of jobs that are not `owner`'s."""
    named = {job_id for wait in waits.values() for job_id in _JOB_ID.findall(wait.why)}
    own = jobs.owned(session, named, owner)
    return {
        job_id: replace(wait, why=_JOB_ID.sub(lambda found: found[0] if found[0] in own else "another's job", wait.why))
        for job_id, wait in waits.items()
    }


def cancel(sessions: Sessions, who: Principal, asked: Asked, job_id: str, force: bool) -> JobOut:
    """Raises JobNotFound, IllegalMove, RequestReused, StillAtWork; so do those below."""
    return _wish(sessions, who, asked, job_id, "cancel", partial(actions.cancel, force=force))


def pause(sessions: Sessions, who: Principal, asked: Asked, job_id: str) -> JobOut:
    return _wish(sessions, who, asked, job_id, "pause", actions.pause)


def resume(sessions: Sessions, publisher: Celery, who: Principal, asked: Asked, job_id: str) -> JobOut:
    job = _wish(sessions, who, asked, job_id, "resume", actions.resume)
    _look(publisher)
    return job


def retry(sessions: Sessions, publisher: Celery, who: Principal, asked: Asked, job_id: str) -> JobOut:
    job = _wish(sessions, who, asked, job_id, "retry", actions.retry)
    _look(publisher)
    return job


def _wish(
    sessions: Sessions,
    who: Principal,
    asked: Asked,
    job_id: str,
    name: str,
    wish: Callable[[Session, str, str | None], Job],
) -> JobOut:
    """The job as it is then; sent again with its key it asks nothing, and others may have asked for more since."""

    def make(settle: Settle) -> JobOut:
        with sessions.begin() as session:
            job = wish(session, job_id, who.scope)
            audit.record(session, who, f"job.{name}", job_id)
            settle(session, job_id)
            return _tell(session, who, [job])[0]

    return once_by_key(sessions, asked, make, partial(get, sessions, who))
