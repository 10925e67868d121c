"""Makes the jobs of a sweep, all or none, lists sweeps with their results, and stops what is left of one."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack

from sqlalchemy.orm import Session

from api.context import Services
from api.errors import InvalidParameter
from api.http.idempotency import Turn, idempotent
from api.jobs.fit import refuse_what_cannot_fit
from api.jobs.service import Labels, insert_job, wake_workers
from api.jobs.submission import Resolver, Submission
from api.sweeps.expansion import SweepRecipe, errors_located, expand
from api.sweeps.schemas import NewSweep, SweepOut, sweep_out
from contract.status import TERMINAL
from runtime import tracing
from store import sweeps
from store.access import audit, quotas
from store.access.idempotent_requests import IdempotentRequest
from store.access.principal import Principal
from store.jobs import actions, jobs
from store.jobs.jobs import SweepPart
from store.paging import Page, page
from store.scheduling import workers
from store.session import autocommit, read_snapshot


def create_sweep(services: Services, who: Principal, turn: Turn, new: NewSweep, force: bool = False) -> str:
    """Checks every recipe as POST /jobs does, stores all jobs in one transaction, and wakes a worker. Returns the
    sweep's id. Raises InvalidParameter, InputError, QuotaExceeded."""
    expanded = expand(new)
    with autocommit(services.sessions) as connection:
        quotas.refuse_full_queue(connection, who.owner, len(expanded))  # before all rows are read
        machines = workers.list_machines(connection)
    trace = tracing.traceparent()
    with ExitStack() as files:
        with tracing.span("resolve", trace):
            resolver = Resolver(services, who, machines, files)
            submissions = [_submission(services, resolver, each, force) for each in expanded]
        with tracing.span("insert", trace), services.sessions.begin() as session:
            sweep_id = _insert(session, who, new, expanded, submissions)
            audit.record(session, who, "sweep.create", sweep_id, jobs=len(expanded))
            turn.complete(session, sweep_id)
    wake_workers(services)
    return sweep_id


def _submission(services: Services, resolver: Resolver, each: SweepRecipe, force: bool) -> Submission:
    with errors_located(each.run):
        submission = resolver.resolve(each.recipe)
        if not force:
            refuse_what_cannot_fit(services, submission)
    return submission


def _insert(
    session: Session,
    who: Principal,
    new: NewSweep,
    expanded: Sequence[SweepRecipe],
    submissions: Sequence[Submission],
) -> str:
    seconds = [
        jobs.expected_seconds(session, submission.recipe, submission.workload.examples) for submission in submissions
    ]
    quotas.check_queue(session, who.owner, len(expanded))  # late, since it holds up the owner's other requests
    fields = dict.fromkeys(path for each in expanded for path in each.run.values)
    sweep = sweeps.create(session, who.owner, new.name or new.recipe.get("name"), list(fields))
    for each, submission, expected in zip(expanded, submissions, seconds, strict=True):
        with errors_located(each.run):
            insert_job(session, who, submission, expected, Labels(part=SweepPart(sweep.id, each.run.values)))
    return sweep.id


def get_sweep(services: Services, who: Principal, sweep_id: str) -> SweepOut:
    """Raises SweepNotFound."""
    with read_snapshot(services.sessions) as session:
        sweep = sweeps.get(session, sweep_id, who.scope)
        return sweep_out(sweep, sweeps.runs(session, [sweep_id])[sweep_id])


def list_sweeps(
    services: Services, who: Principal, limit: int, after: str | None, owner: str | None = None
) -> Page[SweepOut]:
    """Those of `owner`, where an admin asks for them. Raises SweepNotFound for an unknown `after`."""
    with read_snapshot(services.sessions) as session:
        found = page(sweeps.list_sweeps(session, limit + 1, after, who.scope or owner), limit)
        runs = sweeps.runs(session, [sweep.id for sweep in found.rows])
        return Page([sweep_out(sweep, runs[sweep.id]) for sweep in found.rows], found.has_more)


def cancel_sweep(
    services: Services, who: Principal, once: IdempotentRequest, sweep_id: str, keep: Collection[str]
) -> None:
    """Cancels the jobs of a sweep that have not ended, without those to `keep`. A repeated request with the same key
    does nothing. Raises SweepNotFound, InvalidParameter, RequestReused, RequestInProgress."""
    with idempotent(services, once) as turn:
        if turn.made is None:
            with services.sessions.begin() as session:
                sweeps.get(session, sweep_id, who.scope)
                _cancel_jobs(session, sweep_id, keep)
                audit.record(session, who, "sweep.cancel", sweep_id, **({"keep": sorted(keep)} if keep else {}))
                turn.complete(session, sweep_id)


def _cancel_jobs(session: Session, sweep_id: str, keep: Collection[str]) -> None:
    found = sweeps.lock_jobs(session, sweep_id)
    for job_id in keep:
        if job_id not in {job.id for job in found}:
            raise InvalidParameter("keep", job_id, f"give the id of a job of {sweep_id}")
    for job in found:
        if job.id not in keep and job.status not in TERMINAL:
            actions.cancel(session, job.id)
