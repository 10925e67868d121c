"""Asks for merged models, and tells of them."""

import re
from functools import partial

from api.idempotency import Settle, once, with_body
from api.schemas.exports import ExportIn, ExportOut, ExportPage, export_out
from contract.quote import cut
from store import exports
from store.access import audit
from store.access.idempotent_requests import Asked
from store.access.principal import Principal
from store.errors import ExportNotFound
from store.jobs import jobs
from store.session import Sessions


def create(sessions: Sessions, who: Principal, asked: Asked, job_id: str, wanted: ExportIn) -> ExportOut:
    """The one that there is of the same, unless it has failed, or a new one. Raises JobNotFound, ArtifactNotFound,
    RequestReused, StillAtWork."""

    def make(settle: Settle) -> ExportOut:
        with sessions.begin() as session:
            export, is_new = exports.ask(session, job_id, wanted.source, who.scope)
            if is_new:
                audit.record(session, who, "export.create", export.id, job=job_id, source=export.source)
            settle(session, export.id)
            session.refresh(export)
            return export_out(export)

    body = wanted.model_dump_json().encode()
    return once(sessions, with_body(asked, body), make, partial(get, sessions, who, job_id))


def get(sessions: Sessions, who: Principal, job_id: str, export_id: str) -> ExportOut:
    """Raises JobNotFound, ExportNotFound."""
    with sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        if not re.fullmatch(r"exp_[0-9a-f]{24}", export_id):  # PostgreSQL does not take every text as a parameter
            raise ExportNotFound(job_id, cut(export_id))
        return export_out(exports.get(session, job_id, export_id))


def newest(sessions: Sessions, who: Principal, job_id: str, limit: int, after: str | None) -> ExportPage:
    """Raises JobNotFound, and ExportNotFound for an unknown `after`."""
    with sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        if after is not None and not re.fullmatch(r"exp_[0-9a-f]{24}", after):
            raise ExportNotFound(job_id, cut(after))
        found = exports.newest(session, job_id, limit + 1, after)
        return ExportPage(data=[export_out(export) for export in found[:limit]], has_more=len(found) > limit)
