"""A job's artifacts on their way to a model hub."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, StringConstraints

from api.auth.who import Who
from api.context import Context
from api.errors import InvalidParameter
from api.http.body import described, json_body
from api.http.idempotency import Once, idempotent
from api.http.ids import JobId
from contract import ids, patterns
from contract.formatting import truncate
from contract.tracking import SecretName
from store import pushes
from store.access import audit, secrets
from store.access.principal import Principal
from store.artifacts import ADAPTER
from store.errors import PushNotFound
from store.jobs import jobs
from store.models import Push
from store.paging import page
from store.pushes import WantedPush


class PushIn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    repo: Annotated[str, StringConstraints(pattern=patterns.HUB_REPO)]
    """A model's repo on the hub, such as "org/name". It is created if there is none."""
    secret: SecretName
    """Name of the stored secret with a token that may write there."""
    artifact: Annotated[str, StringConstraints(pattern=patterns.ARTIFACT)] = ADAPTER
    """One of the job's artifacts: the adapter, a checkpoint, best.tar, or an export such as portable.tar."""
    private: bool = True
    """Whether the repo is private if it is created. One that exists stays as it is."""
    revision: Annotated[str, StringConstraints(pattern=patterns.HUB_REVISION)] | None = None
    """A branch, which is created if there is none; null is the repo's main one."""


class PushOut(BaseModel):
    id: str
    job_id: str
    artifact: str
    repo: str
    revision: str | None
    private: bool
    secret: str
    status: Literal["queued", "running", "succeeded", "failed"]
    failures: int
    """Failed tries so far; it is tried again for a day, unless the hub refuses."""
    error: str | None
    """What the last try met."""
    url: str | None
    """Address of the repo."""
    commit_url: str | None
    created_at: datetime
    finished_at: datetime | None


class PushPage(BaseModel):
    data: list[PushOut]
    has_more: bool


router = APIRouter(tags=["pushes"])


@router.post("/jobs/{job_id}/pushes", status_code=HTTPStatus.ACCEPTED, openapi_extra=described(PushIn))
def create_push(
    services: Context, who: Who, once: Once, job_id: JobId, wanted: Annotated[PushIn, Depends(json_body(PushIn))]
) -> PushOut:
    """Uploads an artifact to a model hub: that of HF_ENDPOINT, or Hugging Face's. The same request again gives the same
    push until that has ended."""
    with idempotent(services, once) as turn:
        if turn.made is None:
            _check_repo(wanted.repo)
        with services.sessions.begin() as session:
            if turn.made is not None:
                jobs.get(session, job_id, who.scope)
                return _out(pushes.get(session, job_id, turn.made))
            push, is_new = pushes.request(session, who, job_id, WantedPush(**wanted.model_dump()))
            if secrets.missing(session, who.owner, {wanted.secret}):
                raise _no_secret(who, wanted.secret)
            if is_new:
                facts = {"job": job_id, "artifact": push.artifact, "repo": push.repo, "private": push.private}
                audit.record(session, who, "push.create", push.id, **facts)
            turn.complete(session, push.id)
            session.refresh(push)
            return _out(push)


def _check_repo(repo: str) -> None:
    """Raises InvalidParameter for a name that the hub takes for none."""
    # Its import takes a while, and few requests need it.
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InvalidParameter("repo", repo, f"{error}") from error


def _no_secret(who: Principal, name: str) -> InvalidParameter:
    store = f"PUT /secrets/{name}, or `finetuned secrets set {name}`"
    return InvalidParameter("secret", name, f"{who.owner} has no such secret; store the hub's token with {store}")


@router.get("/jobs/{job_id}/pushes")
def list_pushes(
    services: Context,
    who: Who,
    job_id: JobId,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> PushPage:
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        if after is not None:
            _check_id(job_id, after)
        found = page(pushes.list_pushes(session, job_id, limit + 1, after), limit)
        return PushPage(data=[_out(push) for push in found.rows], has_more=found.has_more)


@router.get("/jobs/{job_id}/pushes/{push_id}")
def get_push(services: Context, who: Who, job_id: JobId, push_id: str) -> PushOut:
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        _check_id(job_id, push_id)
        return _out(pushes.get(session, job_id, push_id))


def _check_id(job_id: str, push_id: str) -> None:
    """Raises PushNotFound for what can be no id: PostgreSQL does not take every text as a parameter."""
    if not ids.is_id(ids.PUSH, push_id):
        raise PushNotFound(job_id, truncate(push_id))


def _out(push: Push) -> PushOut:
    return PushOut.model_validate(push, from_attributes=True)
