"""Reads what the planner is given from the rows, in few statements: each costs more than its rows. They run on the
connection: through a session each would take twice as long."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Executable,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    func,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import InstrumentedAttribute, aliased
from sqlalchemy.sql.selectable import LateralFromClause

from contract.machine import Machine, machines_needed, usable_devices
from contract.recipe import Recipe
from contract.status import JobStatus
from store.access import quotas
from store.models import Device, InferenceServer, Job, Lease, StepMetric, Worker
from store.scheduling import workers
from store.scheduling.situation import DeviceRef, Host, Occupant, Waiting

MOST_PER_SHAPE = 100
"""Most waiting jobs of one owner and shape that a pass reads; jobs of other shapes may fit where these do not."""

_MOST_JOBS = 1000
"""Most waiting jobs that a pass reads, of all owners and shapes together."""

THERE = (workers.heard_lately(), ~Worker.draining)
"""Of the workers whose machines take jobs."""

READY = (Job.status == JobStatus.QUEUED, Job.not_before.is_(None) | (Job.not_before <= func.now()))
"""Of the jobs that may start."""

_ONE_PASS = 0x66745F71
"""Key of the advisory lock: two concurrent passes would give the same devices to two jobs."""

_BELOW_ALL_JOBS = -1000
"""The priority of an inference server."""


def any_ready(connection: Connection) -> bool:
    return connection.scalar(select(Job.id).where(*READY).limit(1)) is not None


def lock_pass(connection: Connection) -> None:
    """Keeps other passes out until the transaction ends."""
    connection.execute(select(func.pg_advisory_xact_lock(_ONE_PASS)))


@dataclass(frozen=True)
class Machines:
    """The machines that take jobs, and who is on their devices."""

    now: float
    machines: dict[str, Machine]
    hosts: list[Host]
    occupants: list[Occupant]


def _free(*, locked: bool) -> Select[Any]:
    """The time, and the machines that take jobs with the numbers of the devices that may be given to one."""
    free = select(Device.worker, Device.number).where(Device.external_processes.is_(None))
    if locked:
        # The lock of the pass keeps other passes out; devices that are about to be deleted are skipped.
        free = free.with_for_update(key_share=True, skip_locked=True)
    its = free.cte("free")
    numbers = func.array_agg(its.c.number, type_=ARRAY(Integer)).filter(its.c.number.is_not(None))
    columns = (Worker.name, Worker.machine, Worker.low_disk, Worker.disk)
    machines = select(*columns, numbers.label("free")).where(*THERE).group_by(Worker.name)
    there = machines.outerjoin_from(Worker, its, its.c.worker == Worker.name).subquery()
    clock = select(func.extract("epoch", func.clock_timestamp()).label("now")).subquery()
    # The time comes in any case.
    return select(clock.c.now, there).select_from(clock.outerjoin(there, true())).order_by(there.c.name)


_FREE = _free(locked=False)
_FREE_LOCKED = _free(locked=True)


def read_machines(connection: Connection, *, locked: bool = False) -> Machines:
    """`locked` keeps the free devices from being deleted until the transaction ends."""
    rows = connection.execute(_FREE_LOCKED if locked else _FREE).all()
    there = [row for row in rows if row.name is not None]
    machines = {row.name: Machine.model_validate(row.machine) for row in there}
    hosts = [_host(row, machines[row.name]) for row in there]
    now = float(rows[0].now)
    return Machines(now, machines, hosts, [*_occupants(connection), *_servers(connection, now)])


def _host(row: Any, machine: Machine) -> Host:
    busy = frozenset(range(machine.devices)).difference(row.free or ())
    return Host(row.name, machine.devices, machine.unit, busy, row.disk["reserve_bytes"] if row.low_disk else None)


def _leased() -> Executable:
    # Columns, not objects: building objects of all leases takes longer than the rest of a pass.
    job = (Job.owner, Job.priority, Job.status, Job.attempt, Job.requested_action, Job.started_at, Job.expected_seconds)
    lease = (Lease.job_id, Lease.attempt.label("of"), Lease.worker, Lease.number, Lease.shared, Lease.placed_at)
    preemptible = Job.recipe["scheduling"]["preemptible"].as_boolean().label("preemptible")
    last = _last_metric_of(Lease.job_id)
    reported = (last.c.time.label("reported_at"), last.c.eta_seconds)
    leased = select(*job, *lease, preemptible, *reported).join_from(Lease, Job).outerjoin(last, true())
    return leased.order_by(Lease.job_id, Lease.rank, Lease.number)


def _last_metric_of(job_id: ColumnElement[str] | InstrumentedAttribute[str]) -> LateralFromClause:
    """One look into the index for each job: DISTINCT ON would read all of its metrics."""
    its = select(StepMetric.time, StepMetric.eta_seconds).where(StepMetric.job_id == job_id)
    return its.order_by(StepMetric.step.desc()).limit(1).lateral()


_OCCUPANTS = _leased()


def _occupants(connection: Connection) -> list[Occupant]:
    rows = connection.execute(_OCCUPANTS).all()
    parts: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for row in rows:
        parts[row.job_id, row.of].append(row)
    return [_occupant(taken) for taken in parts.values()]


def _occupant(taken: list[Any]) -> Occupant:
    job = taken[0]
    runs = job.status is JobStatus.RUNNING and job.attempt == job.of
    placed = job.status is JobStatus.QUEUED and job.attempt == job.of - 1
    started = job.started_at.timestamp() if runs and job.started_at else job.placed_at.timestamp()
    if job.reported_at is not None:
        # A metric of an earlier attempt tells the duration, not the end.
        end: float | None = max(job.reported_at, started) + job.eta_seconds
    else:
        end = None if job.expected_seconds is None else started + job.expected_seconds
    return Occupant(
        id=job.job_id,
        owner=job.owner,
        priority=job.priority,
        devices=tuple(DeviceRef(lease.worker, lease.number) for lease in taken),
        share=job.shared,
        preemptible=runs and job.requested_action is None and bool(job.preemptible),
        leaving=job.requested_action is not None or not (runs or placed),
        started=started,
        ends=end,  # an overdue job may end at any moment
    )


def _servers(connection: Connection, now: float) -> list[Occupant]:
    """Inference servers on devices. A job that allows sharing may use the device of one that shares; for any other job
    it ends."""
    return [
        Occupant(
            id=row.id,
            owner="",
            priority=_BELOW_ALL_JOBS,
            devices=(DeviceRef(row.worker, row.number),),
            share=row.inference_shares,
            preemptible=row.inference == "preemptible" and row.state != "stopping",
            leaving=row.state == "stopping",
            started=now,
            ends=now if row.inference == "preemptible" else None,
        )
        for row in connection.execute(_SERVERS)
    ]


_SERVERS = select(
    InferenceServer.id,
    InferenceServer.state,
    InferenceServer.worker,
    InferenceServer.number,
    Worker.inference,
    Worker.inference_shares,
).join(Worker, Worker.name == InferenceServer.worker)


def _seconds_left(connection: Connection, job_ids: Collection[str]) -> dict[str, float]:
    """The seconds left by each job's last metric."""
    rows = connection.execute(_LAST_METRICS, {"ids": list(job_ids)}) if job_ids else ()
    return {row.id: row.eta_seconds for row in rows}


def _last_metrics() -> Select[Any]:
    ids = func.unnest(bindparam("ids", type_=ARRAY(Text))).table_valued("id").render_derived()
    last = _last_metric_of(ids.c.id)
    return select(ids.c.id, last.c.eta_seconds).select_from(ids.join(last, true()))


_LAST_METRICS = _last_metrics()


class WaitingJobs(NamedTuple):
    """The first waiting jobs of each owner and shape."""

    waiting: list[Waiting]
    most_running: dict[str, int]
    """How many jobs may run at once, for the owners that have such a limit."""
    kinds: list[tuple[str, str]]
    """Owner and shape of each."""


def read_ready(connection: Connection, machines: Mapping[str, Machine], most: int) -> WaitingJobs:
    """At most `most` of each owner and shape, and fewer if there are many shapes."""
    return _queue(connection, machines, _FIRST_READY, most)


def read_queue(connection: Connection, machines: Mapping[str, Machine]) -> WaitingJobs:
    """With those that wait after a failure."""
    return _queue(connection, machines, _FIRST, MOST_PER_SHAPE)


def _queue(connection: Connection, machines: Mapping[str, Machine], first: Select[Any], most: int) -> WaitingJobs:
    rows = connection.execute(first, {"most": most}).all()
    left = _seconds_left(connection, {row.id for row in rows if row.attempt > 0})
    requirements = _requirements(rows, machines)
    waiting = [_as_waiting(row, left.get(row.id), requirements[row.shape]) for row in rows]
    most_running = {row.owner: row.most_running for row in rows if row.most_running is not None}
    return WaitingJobs(waiting, most_running, [(row.owner, row.shape) for row in rows])


def _first(*which: Callable[[type[Job]], ColumnElement[bool]]) -> Select[Any]:
    """The first waiting jobs of each owner and shape, for each of the conditions. The latest one of each shape comes
    with its recipe: decoding all recipes takes longer than the rest of a pass."""
    kinds = select(Job.owner, Job.shape).where(Job.status == JobStatus.QUEUED).distinct().cte("kinds")
    found = union_all(*(_first_of(kinds, each) for each in which)).subquery()
    number = func.row_number().over(partition_by=found.c.shape, order_by=found.c.created_at.desc())
    recipe = select(Job.recipe).where(Job.id == found.c.id).scalar_subquery()
    limit = quotas.running_limit(found.c.owner).label("most_running")
    return select(found, case((number == 1, recipe)).label("recipe"), limit)


def _first_of(kinds: CTE, which: Callable[[type[Job]], ColumnElement[bool]]) -> Select[Any]:
    count = select(func.count()).select_from(kinds).scalar_subquery()
    each = aliased(Job)
    placed = select(Lease.job_id).where(Lease.job_id == each.id, Lease.attempt == each.attempt + 1).exists()
    first = (
        select(each.id, each.owner, each.priority, each.created_at, each.not_before, each.attempt)
        .add_columns(each.expected_seconds, each.shape)
        .where(each.owner == kinds.c.owner, each.shape == kinds.c.shape)
        .where(each.status == JobStatus.QUEUED, ~placed, which(each))
        .order_by(each.priority.desc(), each.created_at)
        .limit(func.least(bindparam("most", type_=Integer), func.greatest(1, _MOST_JOBS / count)))
        .lateral()
    )
    return select(first).select_from(kinds.join(first, true()))


def _is_ready(job: type[Job]) -> ColumnElement[bool]:
    return job.not_before.is_(None) | (job.not_before <= func.now())


def _waits_after_failure(job: type[Job]) -> ColumnElement[bool]:
    return job.not_before > func.now()


# Built once: building a statement takes as long as running it.
_FIRST_READY = _first(_is_ready)
_FIRST = _first(_is_ready, _waits_after_failure)


@dataclass(frozen=True)
class _Requirements:
    """What the jobs of a shape require."""

    nodes: int
    needs: dict[str, int]
    usable: dict[str, frozenset[int]]
    share: bool


def _requirements(rows: Sequence[Any], machines: Mapping[str, Machine]) -> dict[str, _Requirements]:
    """The requirements by shape, from the rows with a recipe."""
    recipes = {row.shape: _read(row.recipe) for row in rows if row.recipe is not None}
    # A recipe of an older schema gets any device; its attempt reports the error.
    any_device = Recipe(model="-", dataset="-")  # type: ignore[arg-type]  # a path does for a dataset
    return {shape: _require(recipe or any_device, machines) for shape, recipe in recipes.items()}


def _read(recipe: dict[str, Any]) -> Recipe | None:
    try:
        return Recipe.model_validate(recipe)
    except ValidationError:
        return None


def _require(recipe: Recipe, machines: Mapping[str, Machine]) -> _Requirements:
    return _Requirements(
        nodes=machines_needed(recipe),
        needs={name: machine.devices_needed(recipe) for name, machine in machines.items()},
        usable={name: numbers for name, machine in machines.items() if (numbers := usable_devices(recipe, machine))},
        share=recipe.resources.allow_sharing,
    )


def _as_waiting(row: Any, left: float | None, required: _Requirements) -> Waiting:
    return Waiting(
        id=row.id,
        owner=row.owner,
        priority=row.priority,
        since=row.created_at.timestamp(),
        nodes=required.nodes,
        needs=required.needs,
        usable=required.usable,
        share=required.share,
        seconds=row.expected_seconds if left is None else left,
        not_before=_epoch(row.not_before),
    )


def _epoch(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()
