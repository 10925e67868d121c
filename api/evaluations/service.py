"""Checks what an evaluation names, once, before a worker takes it up."""

import json

from api.context import Services
from api.errors import ArtifactGone
from api.evaluations.schemas import EvaluationIn
from api.http.idempotency import Turn
from api.jobs.submission import Examples, examples_of
from contract.failure import FailureCode, InputError
from contract.model.earlier_adapter import CONFIG
from contract.model.mixed_adapter import check_can_be_mixed
from store import artifacts, evaluations
from store.access import audit, quotas
from store.access.principal import Principal
from store.artifacts import ADAPTER
from store.evaluations import NewEvaluation
from store.jobs import jobs
from store.models import Artifact, Job, JobEvaluation


def create(services: Services, who: Principal, turn: Turn, job_id: str, wanted: EvaluationIn) -> JobEvaluation:
    """Raises JobNotFound, InputError, ArtifactGone, TooManyRequests, QuotaExceeded, StorageUnavailable."""
    with services.sessions.begin() as session:
        job = jobs.get(session, job_id, who.scope)
        source = _choose(job, artifacts.list_published(session, job_id), wanted.checkpoint)
    _check_adapter(services, source)
    examples = _read(services, who, job, wanted)
    given = wanted.model_dump(include={"limit", "max_new_tokens", "temperature", "seed"})
    new = NewEvaluation(
        source=source,
        dataset=examples.dataset,
        settings={**given, "max_length": job.recipe["batch"]["max_length"]},
        examples=min(wanted.limit, examples.count),
    )
    with services.sessions.begin() as session:
        quotas.check_evaluations(session, job.owner)  # late, since it holds up the owner's other requests
        evaluation = evaluations.create(session, job_id, new, who.scope)
        facts = {"job": job_id, "source": source.name, "dataset": examples.dataset.path}
        audit.record(session, who, "evaluation.create", evaluation.id, **facts)
        turn.complete(session, evaluation.id)
        return evaluation


def _choose(job: Job, published: list[Artifact], step: int | None) -> Artifact:
    """The job's adapter, or the checkpoint of a step. Raises InputError."""
    name = ADAPTER if step is None else f"checkpoint-{step}.tar"
    found = next((each for each in published if each.name == name), None)
    if found is not None:
        return found
    steps = sorted(each.step or 0 for each in published if each.kind == "checkpoint")
    has = f"it has checkpoints of steps {', '.join(map(str, steps))}" if steps else "it has no checkpoint either"
    if step is None:
        message = f"checkpoint: got null, and job {job.id}, which is {job.status}, has no adapter; {has}"
    else:
        message = f"checkpoint: got {step}, and job {job.id} has none of that step; {has.removesuffix(' either')}"
    raise InputError(FailureCode.RECIPE_INVALID, message, "checkpoint")


def _check_adapter(services: Services, source: Artifact) -> None:
    """Raises InputError for an adapter that no inference server takes, ArtifactGone, StorageUnavailable."""
    try:
        config = json.loads(b"".join(services.storage.read(artifacts.key(source, CONFIG))))
    except FileNotFoundError as error:
        raise ArtifactGone(source.job_id, source.name) from error
    check_can_be_mixed(config.get("bias", "none"), config.get("target_parameters"))


def _read(services: Services, who: Principal, job: Job, wanted: EvaluationIn) -> Examples:
    """The dataset with every row read, and the first ones rendered. Raises InputError."""
    template = job.recipe["dataset"]["chat_template"]
    given = wanted.dataset.model_copy(update={"chat_template": template})
    model = services.models.find(str(job.recipe["model"]))
    found = examples_of(services, who, given, "answers")
    if model is not None:
        services.reader.try_examples(found.file, model, template)
    return found
