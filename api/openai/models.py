"""Base models and fine-tuned models of the OpenAI-compatible API."""

from sqlalchemy.orm import Session

from api.context import Services
from api.openai.model_names import FineTuned, name_of, name_of_made, read_name
from api.openai.schemas import Deleted, Model, ModelList, seconds
from api.settings import ApiSettings
from contract.status import JobStatus
from store import artifacts
from store.access import audit
from store.access.principal import Principal
from store.errors import JobNotFound, ModelNotFound
from store.jobs import deletion, jobs
from store.jobs.jobs import MadeModel
from store.models import Artifact, Job
from store.paging import page

_BASE_OWNER = "finetuned"


def newest(services: Services, who: Principal, limit: int, after: str | None) -> ModelList:
    """The server's base models, then the owner's fine-tuned ones, newest first; `after` is the last name of the page
    before. Raises ModelNotFound for an unknown `after`."""
    last = None if after is None else read_name(after)
    if after is not None and last is None:
        raise ModelNotFound(after)
    with services.sessions.begin() as session:
        try:
            found = page(jobs.list_models(session, who.scope, limit + 1, last.job_id if last else None), limit)
        except JobNotFound as error:
            raise ModelNotFound(after or "") from error
    bases = [] if after else _bases(services.settings)
    return ModelList(data=[*bases, *map(_made, found.rows)], has_more=found.has_more)


def get(services: Services, who: Principal, name: str) -> Model:
    """Raises ModelNotFound."""
    fine_tuned = read_name(name)
    if fine_tuned is None:
        found = next((base for base in _bases(services.settings) if base.id == name), None)
        if found is None:
            raise ModelNotFound(name)
        return found
    with services.sessions.begin() as session:
        job, _ = find_adapter(session, who, name, fine_tuned)
        return _fine_tuned(job, fine_tuned.step)


def find_adapter(session: Session, who: Principal, name: str, fine_tuned: FineTuned) -> tuple[Job, Artifact]:
    """The job of a fine-tuned model, and its adapter or checkpoint. Raises ModelNotFound."""
    try:
        job = jobs.get(session, fine_tuned.job_id, who.scope)
    except JobNotFound as error:
        raise ModelNotFound(name) from error
    kind = "adapter" if fine_tuned.step is None else "checkpoint"
    saved = [each for each in artifacts.list_published(session, job.id) if each.kind == kind]
    found = next((each for each in saved if fine_tuned.step in (None, each.step)), None)
    is_whole = fine_tuned.step is not None or job.status is JobStatus.SUCCEEDED
    if found is None or not is_whole or job.model_deleted_at is not None:
        raise ModelNotFound(name)
    return job, found


def delete(services: Services, who: Principal, name: str) -> Deleted:
    """Deletes a job's model; a worker deletes its files. Raises ModelNotFound, JobInUse."""
    fine_tuned = read_name(name)
    if fine_tuned is None or fine_tuned.step is not None:
        raise ModelNotFound(name)
    with services.sessions.begin() as session:
        try:
            job = jobs.lock(session, fine_tuned.job_id, who.scope)
        except JobNotFound as error:
            raise ModelNotFound(name) from error
        if not deletion.delete_model(session, job):
            raise ModelNotFound(name)
        audit.record(session, who, "model.delete", job.id)
    return Deleted(id=name, object="model")


def _bases(settings: ApiSettings) -> list[Model]:
    folders = sorted(settings.models.glob("*/config.json")) if settings.models.is_dir() else []
    return [
        Model(id=config.parent.name, created=int(config.stat().st_mtime), owned_by=_BASE_OWNER) for config in folders
    ]


def _fine_tuned(job: Job, step: int | None) -> Model:
    return Model(id=name_of(job, step), created=seconds(job.finished_at or job.created_at), owned_by=job.owner)


def _made(made: MadeModel) -> Model:
    name = name_of_made(made.id, made.owner, made.base, made.suffix)
    return Model(id=name, created=seconds(made.finished_at), owned_by=made.owner)
