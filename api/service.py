"""What the API does for a job: the steps of a route, each in one short transaction."""

import hashlib
import json
import logging
import re
from pathlib import Path

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import text

from api.errors import ArtifactGone
from api.schemas import ArtifactList, Health, JobOut, JobPage, SampleList, artifact_out, job_out
from api.settings import ApiSettings
from contract.base_model import check_adapter, weight_shapes
from contract.earlier_adapter import check_earlier_adapter
from contract.failure import FailureReason, InputError
from contract.locate import locate_dataset, locate_model
from contract.machine import check_machines, unwise
from contract.quote import cut
from contract.recipe import Recipe
from contract.recipe_errors import read_recipe
from contract.status import TERMINAL
from dataset.read import read_examples
from store import artifacts, jobs, progress, workers
from store.broker import wake
from store.earlier_adapter import locate_earlier_adapter
from store.errors import ArtifactNotFound
from store.progress import Cursor, Happening
from store.session import Sessions

log = logging.getLogger(__name__)

_ARTIFACT_NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)


def submit(sessions: Sessions, broker: Celery, settings: ApiSettings, body: bytes) -> JobOut:
    """Checks a recipe as far as can be done without training, stores it, and wakes a worker. Raises InputError."""
    recipe = read_recipe(body)
    with sessions.begin() as session:
        machines = workers.machines(session)
    check_machines(recipe, machines)
    recipe = check(sessions, settings, recipe)
    with sessions.begin() as session:
        job = job_out(jobs.create(session, recipe, unwise(recipe, machines)), None)
    try:
        wake(broker, job.id)
    except OperationalError as error:
        # The row is there, so the job is taken; the workers' reaper wakes for it when the broker is back.
        log.warning("no wake-up for job %s: %s", job.id, error)
    return job


def check(sessions: Sessions, settings: ApiSettings, recipe: Recipe) -> Recipe:
    """The recipe with its dataset's digest. Raises InputError: no such file or folder, a bad row, unmatched modules."""
    model = locate_model(recipe.model, settings.models, settings.allowed_paths)
    shapes = weight_shapes(model) if model else None
    if shapes is not None:
        check_adapter(recipe.adapter, shapes)
    if recipe.adapter.start_from is not None:
        earlier = locate_earlier_adapter(sessions, settings.runs, recipe.adapter.start_from)
        if shapes is not None:  # else the trainer checks it, when it has the model
            check_earlier_adapter(earlier, shapes, recipe.model)
    given = recipe.dataset
    path = locate_dataset(given.path, settings.dataset_folders)
    # Of the very bytes that are checked: the file may change meanwhile.
    digest = hashlib.sha256()
    for _ in read_examples(path, given.format, given.columns, largest=settings.largest_dataset, sha256=digest):
        pass
    sha256 = digest.hexdigest()
    if given.sha256 not in (None, sha256):
        message = f"dataset.sha256: got {given.sha256}; the file {cut(given.path, 200)} has {sha256}"
        raise InputError(FailureReason.DATASET_CHANGED, message, "dataset.sha256")
    return recipe.model_copy(update={"dataset": given.model_copy(update={"sha256": sha256})})


def get(sessions: Sessions, job_id: str) -> JobOut:
    """Raises JobNotFound."""
    with sessions.begin() as session:
        job = jobs.get(session, job_id)
        return job_out(job, progress.latest(session, [job_id]).get(job_id))


def newest(sessions: Sessions, limit: int, after: str | None) -> JobPage:
    """Raises JobNotFound for an unknown `after`."""
    with sessions.begin() as session:
        found = jobs.newest(session, limit + 1, after)
        latest = progress.latest(session, [job.id for job in found])
        page = [job_out(job, latest.get(job.id)) for job in found[:limit]]
    return JobPage(data=page, has_more=len(found) > limit)


def cancel(sessions: Sessions, job_id: str) -> JobOut:
    """Raises JobNotFound, IllegalMove."""
    with sessions.begin() as session:
        job = jobs.request_cancel(session, job_id)
        return job_out(job, progress.latest(session, [job_id]).get(job_id))


def metrics(sessions: Sessions, job_id: str, since_step: int, limit: int, downsample: int | None) -> str:
    """A schemas.Metrics as JSON. Raises JobNotFound."""
    with sessions.begin() as session:
        jobs.get(session, job_id)
        columns = progress.metric_columns(session, job_id, since_step, limit, downsample)
        evaluations = progress.evaluation_columns(session, job_id)
    return f'{{"job_id": {json.dumps(job_id)}, "columns": {columns}, "evaluations": {json.dumps(evaluations)}}}'


def samples(sessions: Sessions, job_id: str, step: int | None) -> SampleList:
    """Of the evaluation at `step`, else of the latest one. Raises JobNotFound."""
    with sessions.begin() as session:
        jobs.get(session, job_id)
        return SampleList.model_validate({"data": progress.samples(session, job_id, step)})


def events_after(sessions: Sessions, job_id: str, cursor: Cursor, limit: int) -> tuple[list[Happening], bool]:
    """The first `limit` happenings after `cursor`, and whether nothing will ever follow them. Raises JobNotFound."""
    with sessions.begin() as session:
        # Read before the events: a job that has ended by then has told all, so that none of it is missed.
        ended = jobs.get(session, job_id).status in TERMINAL
        page = progress.events_since(session, job_id, cursor, limit)
    return page, ended and len(page) < limit


def artifacts_of(sessions: Sessions, job_id: str) -> ArtifactList:
    """Raises JobNotFound."""
    with sessions.begin() as session:
        jobs.get(session, job_id)
        found = artifacts.of_job(session, job_id)
    best = artifacts.best(found)
    return ArtifactList(data=[artifact_out(artifact, best is artifact) for artifact in found])


def artifact_path(sessions: Sessions, settings: ApiSettings, job_id: str, name: str) -> Path:
    """The file or folder of an artifact. Raises JobNotFound, ArtifactNotFound, ArtifactGone."""
    with sessions.begin() as session:
        jobs.get(session, job_id)
        if not _ARTIFACT_NAME.fullmatch(name):  # PostgreSQL does not take every text as a parameter
            raise ArtifactNotFound(job_id, cut(name))
        artifact = artifacts.get(session, job_id, name)
    path = artifacts.locate(settings.runs, artifact)
    if path is None:
        raise ArtifactGone(job_id, name)
    return path


def health(sessions: Sessions) -> Health:
    """Answers when the service can take jobs: its database does."""
    with sessions.begin() as session:
        session.execute(text("SELECT 1"))
    return Health(status="ok")
