"""What the API does for a job: the steps of a route, each in one short transaction."""

import logging

from celery import Celery
from kombu.exceptions import OperationalError

from api.schemas import JobOut, JobPage, job_out
from api.settings import ApiSettings
from contract.base_model import check_target_modules, weight_shapes
from contract.examples import digest, read_examples
from contract.failure import FailureReason, InputError
from contract.locate import locate_dataset, locate_model
from contract.recipe import Recipe
from contract.recipe_errors import read_recipe
from store import jobs, progress
from store.broker import wake
from store.session import Sessions

log = logging.getLogger(__name__)


def submit(sessions: Sessions, broker: Celery, settings: ApiSettings, body: bytes) -> JobOut:
    """Checks a recipe as far as can be done without training, stores it, and wakes a worker. Raises InputError."""
    recipe = check(settings, read_recipe(body))
    with sessions.begin() as session:
        job = job_out(jobs.create(session, recipe), None)
    try:
        wake(broker, job.id)
    except OperationalError as error:
        # The row is there, so the job is taken; the workers' reaper wakes for it when the broker is back.
        log.warning("no wake-up for job %s: %s", job.id, error)
    return job


def check(settings: ApiSettings, recipe: Recipe) -> Recipe:
    """The recipe with its dataset's digest. Raises InputError: no such file or folder, a bad row, unmatched modules."""
    model = locate_model(recipe.model, settings.models, settings.allowed_paths)
    if model is not None and recipe.adapter.target_modules != "all-linear":
        check_target_modules(recipe.adapter.target_modules, weight_shapes(model))
    dataset = locate_dataset(recipe.dataset.path, settings.dataset_folders)
    for _ in read_examples(dataset, recipe.dataset.format):
        pass
    sha256 = digest(dataset)
    if recipe.dataset.sha256 not in (None, sha256):
        message = f"dataset.sha256: got {recipe.dataset.sha256}; the file {recipe.dataset.path} has {sha256}"
        raise InputError(FailureReason.DATASET_CHANGED, message, "dataset.sha256")
    return recipe.model_copy(update={"dataset": recipe.dataset.model_copy(update={"sha256": sha256})})


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
