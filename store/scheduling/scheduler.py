"""Runs the planner on the rows, and writes what it decides.

benchmarks/claims.py promises 500 claims a second with 10,000 waiting jobs and 1,024 devices. That is why a pass reads a
few jobs of each shape (models.Job.shape), asks first whether any room can be made, and builds no objects of the leases.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Executable, Integer, Select, bindparam, case, func, select, true
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased

from contract.machine import Machine, usable_devices
from contract.recipe import Recipe
from contract.status import JobStatus, RequestedAction
from store.access import quotas
from store.jobs import jobs
from store.models import Device, Job, Lease, StepMetric, Worker
from store.scheduling import leases, workers
from store.scheduling.leases import Placement
from store.scheduling.planner import plan
from store.scheduling.situation import DeviceRef, Host, Occupant, Wait, Waiting

_ONE_PASS = 0x66745F71
"""Key of the advisory lock: two concurrent passes would give the same devices to two jobs."""

_MOST_PER_SHAPE = 100
"""Most waiting jobs of one owner and shape that a pass reads; jobs of other shapes may fit where these do not."""

_MOST_JOBS = 1000
"""Most waiting jobs that a pass reads, of all owners and shapes together."""

_SPARE_JOBS = 8
"""Jobs read beyond the number of free devices. If more than these cannot start, the pass reads all."""


_READY = (Job.status == JobStatus.QUEUED, Job.not_before.is_(None) | (Job.not_before <= func.now()))
_THERE = (workers.heard_lately(), ~Worker.draining)


def schedule(session: Session) -> list[Placement]:
    """Gives devices to the jobs whose turn it is, and preempts the jobs that must make room."""
    if session.scalar(select(Job.id).where(*_READY).limit(1)) is None:
        return []
    session.execute(select(func.pg_advisory_xact_lock(_ONE_PASS)))
    leases.revoke_not_started(session)
    if not session.scalar(_CAN_MAKE_ROOM):
        return []
    # The lock keeps other passes out; devices that are about to be deleted are skipped.
    now, machines, hosts, occupants = _devices(session, _DEVICES.with_for_update(key_share=True, skip_locked=True))
    room = _room(hosts, occupants)
    most = min(room + _SPARE_JOBS, _MOST_PER_SHAPE)
    waiting = _waiting(session, machines, most)
    decision = plan(now, hosts, waiting, occupants, _most_running(session, waiting))
    if most < _MOST_PER_SHAPE and len({place for places in decision.starts.values() for place in places}) < room:
        waiting = _waiting(session, machines, _MOST_PER_SHAPE)
        decision = plan(now, hosts, waiting, occupants, _most_running(session, waiting))
    _request_preemption(session, decision.preempt)
    still_queued = select(Job.id, Job.attempt).where(Job.id.in_(decision.starts), Job.status == JobStatus.QUEUED)
    locked = session.execute(still_queued.with_for_update(skip_locked=True))
    before = dict(locked.all())
    shares = {each.id: each.share for each in waiting}
    placed = [
        Placement(job_id, before[job_id] + 1, places, shares[job_id])
        for job_id, places in decision.starts.items()
        if job_id in before
    ]
    leases.place(session, placed)
    return placed


def outlook(session: Session, queued: Sequence[Job]) -> dict[str, Wait]:
    """Why and how long each of these queued jobs is expected to wait."""
    now, machines, hosts, occupants = _devices(session, _DEVICES)
    waiting = _waiting(session, machines, _MOST_PER_SHAPE, kept_back=True)
    decision = plan(now, hosts, waiting, occupants, _most_running(session, waiting))
    found = dict(decision.waits)
    beyond = []
    for job in queued:
        given = [each for each in occupants if each.id == job.id and not each.leaving]
        if given or job.id in decision.starts:
            where = given[0].devices if given else decision.starts[job.id]
            found[job.id] = Wait(1, f"The job is about to start on {where[0].worker}.", now)
        elif job.id not in found:
            beyond.append(job)
    if beyond:
        planned = select(Job.owner, Job.shape, Job.id).where(Job.id.in_([each.id for each in waiting]))
        places: dict[tuple[str, str], list[int]] = defaultdict(list)
        for owner, shape, job_id in session.execute(planned):
            places[owner, shape].append(decision.waits[job_id].position if job_id in decision.waits else 0)
        for job in beyond:
            # All jobs read of its owner and shape come before it, and so does what comes before the last of them.
            before = places[job.owner, job.shape]
            count = max(len(before), *before, 0)
            found[job.id] = Wait(count + 1, f"The job waits for at least {count} jobs that come before it.", None)
    return {job.id: found[job.id] for job in queued}


def _most_running(session: Session, waiting: Sequence[Waiting]) -> dict[str, int]:
    return quotas.running_jobs(session, {job.owner for job in waiting})


def _can_make_room() -> Select[tuple[bool]]:
    """A query for whether any device is free, or may be freed for a job of a higher priority. Most passes end with
    it."""
    users = select(Lease.worker, Lease.number, func.sum(case((Lease.shared, 1), else_=2)).label("count"))
    taken = users.group_by(Lease.worker, Lease.number).subquery()
    its = (taken.c.worker == Device.worker) & (taken.c.number == Device.number)
    free = select(Device.number).join(Worker, Worker.name == Device.worker).outerjoin(taken, its)
    free = free.where(
        *_THERE, ~Worker.low_disk, Device.external_processes.is_(None), func.coalesce(taken.c.count, 0) < 2
    )
    highest = select(func.max(Job.priority)).where(*_READY).scalar_subquery()
    lower = aliased(Job)
    running = select(lower.id).where(lower.status == JobStatus.RUNNING, lower.requested_action.is_(None))
    spared = running.where(lower.recipe["scheduling"]["preemptible"].as_boolean(), lower.priority < highest)
    return select(free.exists() | spared.exists())


_CAN_MAKE_ROOM = _can_make_room()


def _room(hosts: Sequence[Host], occupants: Sequence[Occupant]) -> int:
    """How many devices can be given to a job."""
    users = Counter(place for each in occupants for place in each.devices for _ in range(1 if each.share else 2))
    places = (
        DeviceRef(host.name, number)
        for host in hosts
        if host.reserve_bytes is None
        for number in range(host.devices)
        if number not in host.busy
    )
    return sum(users[place] < 2 for place in places)


_DEVICES = select(Device.worker, Device.number, Device.external_processes)


def _devices(
    session: Session, devices: Select[tuple[str, int, list[Any] | None]]
) -> tuple[float, dict[str, Machine], list[Host], list[Occupant]]:
    """The time, the machines that take jobs, and the jobs on their devices. Only `devices` may be given to jobs."""
    now = float(session.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0)
    free: dict[str, set[int]] = defaultdict(set)
    for worker, number, external_processes in session.execute(devices):
        if external_processes is None:
            free[worker].add(number)
    columns = (Worker.name, Worker.machine, Worker.low_disk, Worker.disk)
    rows = session.execute(select(*columns).where(*_THERE).order_by(Worker.name)).all()
    machines = {row.name: Machine.model_validate(row.machine) for row in rows}
    reserves = {row.name: row.disk["reserve_bytes"] if row.low_disk else None for row in rows}
    hosts = [
        Host(
            name,
            machine.devices,
            "GPU" if machine.gpus else "CPU slot",
            frozenset(range(machine.devices)) - free[name],
            reserves[name],
        )
        for name, machine in machines.items()
    ]
    return now, machines, hosts, _occupants(session)


def _leased() -> Executable:
    # Columns, not objects: building objects of all leases takes longer than the rest of a pass.
    job = (Job.owner, Job.priority, Job.status, Job.attempt, Job.requested_action, Job.started_at, Job.expected_seconds)
    lease = (Lease.job_id, Lease.attempt.label("of"), Lease.worker, Lease.number, Lease.shared, Lease.placed_at)
    preemptible = Job.recipe["scheduling"]["preemptible"].as_boolean().label("preemptible")
    return select(*job, *lease, preemptible).join_from(Lease, Job).order_by(Lease.job_id, Lease.rank, Lease.number)


_OCCUPANTS = _leased()


def _occupants(session: Session) -> list[Occupant]:
    rows = session.execute(_OCCUPANTS).all()
    parts: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for row in rows:
        parts[row.job_id, row.of].append(row)
    ends = _ends(session, {row.job_id for row in rows}) if rows else {}
    return [_occupant(taken, ends) for taken in parts.values()]


def _occupant(taken: list[Any], ends: dict[str, tuple[float, float]]) -> Occupant:
    job = taken[0]
    runs = job.status is JobStatus.RUNNING and job.attempt == job.of
    placed = job.status is JobStatus.QUEUED and job.attempt == job.of - 1
    started = job.started_at.timestamp() if runs and job.started_at else job.placed_at.timestamp()
    if job.job_id in ends:
        reported, seconds = ends[job.job_id]
        # A metric of an earlier attempt tells the duration, not the end.
        end: float | None = max(reported, started) + seconds
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


def _ends(session: Session, job_ids: set[str]) -> dict[str, tuple[float, float]]:
    """The time of each job's last metric, and the seconds left by it."""
    last = select(StepMetric.job_id, StepMetric.time, StepMetric.eta_seconds).where(StepMetric.job_id.in_(job_ids))
    last = last.ext(distinct_on(StepMetric.job_id)).order_by(StepMetric.job_id, StepMetric.step.desc())
    return {job_id: (time, seconds) for job_id, time, seconds in session.execute(last)}


def _waiting(session: Session, machines: dict[str, Machine], most: int, *, kept_back: bool = False) -> list[Waiting]:
    """The first waiting jobs of each owner and shape: at most `most`, and fewer if there are many shapes. With
    `kept_back` also the first of those that wait after a failure."""
    rows = list(session.execute(_FIRST_READY, {"most": most}))
    if kept_back:
        rows += session.execute(_FIRST_KEPT_BACK, {"most": most})
    again = {row.id for row in rows if row.attempt > 0}
    left = _ends(session, again) if again else {}
    requirements = _requirements(_recipes(session, rows), machines)
    return [_as_waiting(row, left.get(row.id), requirements[row.shape]) for row in rows]


def _first(which: Callable[[type[Job]], ColumnElement[bool]]) -> Select[Any]:
    kinds = select(Job.owner, Job.shape).where(Job.status == JobStatus.QUEUED).distinct().cte("kinds")
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


# Built once: building a statement takes as long as running it.
_FIRST_READY = _first(lambda job: job.not_before.is_(None) | (job.not_before <= func.now()))
_FIRST_KEPT_BACK = _first(lambda job: job.not_before > func.now())
_RECIPES = select(Job.shape, Job.recipe).where(Job.id.in_(bindparam("ids", expanding=True)))


def _recipes(session: Session, rows: Sequence[Any]) -> Sequence[Any]:
    """The recipe of the latest job of each shape. Decoding all recipes takes longer than the rest of a pass."""
    latest = {row.shape: row.id for row in sorted(rows, key=attrgetter("created_at"))}
    return session.execute(_RECIPES, {"ids": list(latest.values())}).all() if latest else []


@dataclass(frozen=True)
class _Requirements:
    """What the jobs of a shape require."""

    nodes: int
    needs: dict[str, int]
    usable: dict[str, frozenset[int]]
    share: bool


def _requirements(rows: Sequence[Any], machines: Mapping[str, Machine]) -> dict[str, _Requirements]:
    """The requirements by shape: validating every recipe would take longer than the rest of a pass."""
    recipes = {row.shape: _read(row.recipe) for row in rows}
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
        nodes=recipe.resources.nodes,
        needs={name: machine.devices_needed(recipe) for name, machine in machines.items()},
        usable={name: numbers for name, machine in machines.items() if (numbers := usable_devices(recipe, machine))},
        share=recipe.resources.allow_sharing,
    )


def _as_waiting(row: Any, left: tuple[float, float] | None, required: _Requirements) -> Waiting:
    return Waiting(
        id=row.id,
        owner=row.owner,
        priority=row.priority,
        since=row.created_at.timestamp(),
        nodes=required.nodes,
        needs=required.needs,
        usable=required.usable,
        share=required.share,
        seconds=row.expected_seconds if left is None else left[1],
        not_before=_epoch(row.not_before),
    )


def _epoch(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()


def _request_preemption(session: Session, job_ids: Collection[str]) -> None:
    """Skips jobs that are locked: the holder may wait for rows that this pass has locked. The next pass tries again."""
    running = select(Job).where(Job.id.in_(job_ids), Job.status == JobStatus.RUNNING, Job.requested_action.is_(None))
    message = "preempted by a job of a higher priority: it saves, and goes on when there is room"
    for job in session.scalars(running.with_for_update(skip_locked=True)):
        job.requested_action = RequestedAction.PREEMPT
        jobs.record_event(session, job, "log", {"level": "info", "message": message})
