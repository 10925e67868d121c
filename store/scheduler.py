"""Runs the planner on what the database knows, and writes what it decides."""

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

from contract.machine import Machine, usable
from contract.recipe import Recipe
from contract.status import JobStatus, RequestedAction
from store.access import quotas
from store.jobs import jobs
from store.models import Device, Job, Lease, Metric, Worker
from store.scheduling import leases
from store.scheduling.leases import Placed
from store.scheduling.planner import Device as Place
from store.scheduling.planner import Host, Occupant, Wait, Waiting, plan
from store.scheduling.workers import SILENCE

_ONE_PASS = 0x66745F71
"""Names the advisory lock: two passes at once would give what is free to the same jobs."""

_OF_EACH_SHAPE = 100
"""Waiting jobs of an owner that a pass looks at, at most. Those of other shapes may fit where these do not."""

_IN_ALL = 1000
"""Likewise, of all owners and shapes together."""

_IN_BETWEEN = 8
"""Of these may be unable to start while there are devices: where more are, the pass looks at all."""


_READY = (Job.status == JobStatus.QUEUED, Job.not_before.is_(None) | (Job.not_before <= func.now()))
_THERE = (Worker.seen_at >= func.now() - SILENCE, ~Worker.draining)


def schedule(session: Session) -> list[Placed]:
    """Gives devices to the jobs whose turn it is, and has those that shall make room save and go back to the queue."""
    if session.scalar(select(Job.id).where(*_READY).limit(1)) is None:
        return []
    session.execute(select(func.pg_advisory_xact_lock(_ONE_PASS)))
    leases.take_back_unbegun(session)
    if not session.scalar(_CAN_MAKE_ROOM):
        return []
    # Nobody else gives devices; those that are about to be taken off the table are not given.
    now, found, hosts, occupants = _devices(session, _DEVICES.with_for_update(key_share=True, skip_locked=True))
    room = _room(hosts, occupants)
    most = min(room + _IN_BETWEEN, _OF_EACH_SHAPE)
    waiting = _waiting(session, found, most)
    decided = plan(now, hosts, waiting, occupants, _most_running(session, waiting))
    if most < _OF_EACH_SHAPE and len({place for places in decided.starts.values() for place in places}) < room:
        waiting = _waiting(session, found, _OF_EACH_SHAPE)
        decided = plan(now, hosts, waiting, occupants, _most_running(session, waiting))
    _request_preemption(session, decided.preempt)
    still_queued = select(Job.id, Job.attempt).where(Job.id.in_(decided.starts), Job.status == JobStatus.QUEUED)
    locked = session.execute(still_queued.with_for_update(skip_locked=True))
    before = dict(locked.all())
    shares = {each.id: each.share for each in waiting}
    placed = [
        Placed(job_id, before[job_id] + 1, places, shares[job_id])
        for job_id, places in decided.starts.items()
        if job_id in before
    ]
    leases.place(session, placed)
    return placed


def outlook(session: Session, queued: Sequence[Job]) -> dict[str, Wait]:
    """What each of these waiting jobs waits for."""
    now, machines, hosts, occupants = _devices(session, _DEVICES)
    waiting = _waiting(session, machines, _OF_EACH_SHAPE, kept_back=True)
    decided = plan(now, hosts, waiting, occupants, _most_running(session, waiting))
    found = dict(decided.waits)
    beyond = []
    for job in queued:
        given = [each for each in occupants if each.id == job.id and not each.leaving]
        if given or job.id in decided.starts:
            where = given[0].devices if given else decided.starts[job.id]
            found[job.id] = Wait(1, f"Is about to start on {where[0].worker}.", now)
        elif job.id not in found:
            beyond.append(job)
    if beyond:
        planned = select(Job.owner, Job.shape, Job.id).where(Job.id.in_([each.id for each in waiting]))
        places: dict[tuple[str, str], list[int]] = defaultdict(list)
        for owner, shape, job_id in session.execute(planned):
            places[owner, shape].append(decided.waits[job_id].position if job_id in decided.waits else 0)
        for job in beyond:
            # All that were looked at of its owner and shape come before it, and what comes before the last of these.
            before = places[job.owner, job.shape]
            count = max(len(before), *before, 0)
            found[job.id] = Wait(count + 1, f"Waits for at least {count} jobs that come before it.", None)
    return {job.id: found[job.id] for job in queued}


def _most_running(session: Session, waiting: Sequence[Waiting]) -> dict[str, int]:
    return quotas.running_jobs(session, {job.owner for job in waiting})


def _can_make_room() -> Select[tuple[bool]]:
    """Whether a device may be free for somebody, or left by one for another of a higher priority. Most passes end with
    this question."""
    users = select(Lease.worker, Lease.number, func.sum(case((Lease.shared, 1), else_=2)).label("count"))
    taken = users.group_by(Lease.worker, Lease.number).subquery()
    its = (taken.c.worker == Device.worker) & (taken.c.number == Device.number)
    free = select(Device.number).join(Worker, Worker.name == Device.worker).outerjoin(taken, its)
    free = free.where(*_THERE, Device.external_processes.is_(None), func.coalesce(taken.c.count, 0) < 2)
    highest = select(func.max(Job.priority)).where(*_READY).scalar_subquery()
    lower = aliased(Job)
    running = select(lower.id).where(lower.status == JobStatus.RUNNING, lower.requested_action.is_(None))
    spared = running.where(lower.recipe["scheduling"]["preemptible"].as_boolean(), lower.priority < highest)
    return select(free.exists() | spared.exists())


_CAN_MAKE_ROOM = _can_make_room()


def _room(hosts: Sequence[Host], occupants: Sequence[Occupant]) -> int:
    """How many devices can be given to somebody."""
    users = Counter(place for each in occupants for place in each.devices for _ in range(1 if each.share else 2))
    places = (Place(host.name, number) for host in hosts for number in range(host.devices) if number not in host.busy)
    return sum(users[place] < 2 for place in places)


_DEVICES = select(Device.worker, Device.number, Device.external_processes)


def _devices(
    session: Session, devices: Select[tuple[str, int, list[Any] | None]]
) -> tuple[float, dict[str, Machine], list[Host], list[Occupant]]:
    """The time; the machines that take jobs; and who has their devices. What is not among `devices` is not given."""
    now = float(session.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0)
    free: dict[str, set[int]] = defaultdict(set)
    for worker, number, external_processes in session.execute(devices):
        if external_processes is None:
            free[worker].add(number)
    rows = session.execute(select(Worker.name, Worker.machine).where(*_THERE).order_by(Worker.name))
    machines = {name: Machine.model_validate(machine) for name, machine in rows}
    hosts = [
        Host(
            name, machine.devices, "GPU" if machine.gpus else "CPU slot", frozenset(range(machine.devices)) - free[name]
        )
        for name, machine in machines.items()
    ]
    return now, machines, hosts, _occupants(session)


def _leased() -> Executable:
    # Columns: to make objects of all the leases takes longer than all else that a pass does.
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
        told, seconds = ends[job.job_id]
        # A metric of the attempt before says how long it takes, not when it ends.
        end: float | None = max(told, started) + seconds
    else:
        end = None if job.expected_seconds is None else started + job.expected_seconds
    return Occupant(
        id=job.job_id,
        owner=job.owner,
        priority=job.priority,
        devices=tuple(Place(lease.worker, lease.number) for lease in taken),
        share=job.shared,
        preemptible=runs and job.requested_action is None and bool(job.preemptible),
        leaving=job.requested_action is not None or not (runs or placed),
        started=started,
        ends=end,  # what is overdue may end at any moment
    )


def _ends(session: Session, job_ids: set[str]) -> dict[str, tuple[float, float]]:
    """When each job's last metric was told, and how many seconds were left then."""
    last = select(Metric.job_id, Metric.time, Metric.eta_seconds).where(Metric.job_id.in_(job_ids))
    last = last.ext(distinct_on(Metric.job_id)).order_by(Metric.job_id, Metric.step.desc())
    return {job_id: (told, seconds) for job_id, told, seconds in session.execute(last)}


def _waiting(session: Session, machines: dict[str, Machine], most: int, *, kept_back: bool = False) -> list[Waiting]:
    """The first of each owner and shape, `most` at most, and fewer where there are many of these; with `kept_back` also
    the first of those that wait after a failure, which hold nobody up."""
    rows = list(session.execute(_FIRST_READY, {"most": most}))
    if kept_back:
        rows += session.execute(_FIRST_KEPT_BACK, {"most": most})
    again = {row.id for row in rows if row.attempt > 0}
    left = _ends(session, again) if again else {}
    asked = _asked(_recipes(session, rows), machines)
    return [_wait(row, left.get(row.id), asked[row.shape]) for row in rows]


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
        .limit(func.least(bindparam("most", type_=Integer), func.greatest(1, _IN_ALL / count)))
        .lateral()
    )
    return select(first).select_from(kinds.join(first, true()))


# Made once: to put one together takes as long as to run it.
_FIRST_READY = _first(lambda job: job.not_before.is_(None) | (job.not_before <= func.now()))
_FIRST_KEPT_BACK = _first(lambda job: job.not_before > func.now())
_RECIPES = select(Job.shape, Job.recipe).where(Job.id.in_(bindparam("ids", expanding=True)))


def _recipes(session: Session, rows: Sequence[Any]) -> Sequence[Any]:
    """For each shape the recipe of its latest job, which no older schema wrote where another has a newer one. To decode
    all of them takes longer than all else that a look at the queue does."""
    latest = {row.shape: row.id for row in sorted(rows, key=attrgetter("created_at"))}
    return session.execute(_RECIPES, {"ids": list(latest.values())}).all() if latest else []


@dataclass(frozen=True)
class _Asked:
    """What the jobs of a shape ask for."""

    nodes: int
    needs: dict[str, int]
    usable: dict[str, frozenset[int]]
    share: bool


def _asked(rows: Sequence[Any], machines: Mapping[str, Machine]) -> dict[str, _Asked]:
    """By shape: to read each recipe takes longer than all else that a pass does."""
    recipes = {row.shape: _read(row.recipe) for row in rows}
    # One of an older schema is given any device, for its attempt to say so.
    any_device = Recipe(model="-", dataset="-")  # type: ignore[arg-type]  # a path does for a dataset
    return {shape: _ask(recipe or any_device, machines) for shape, recipe in recipes.items()}


def _read(recipe: dict[str, Any]) -> Recipe | None:
    try:
        return Recipe.model_validate(recipe)
    except ValidationError:
        return None


def _ask(recipe: Recipe, machines: Mapping[str, Machine]) -> _Asked:
    return _Asked(
        nodes=recipe.resources.nodes,
        needs={name: machine.needs(recipe) for name, machine in machines.items()},
        usable={name: numbers for name, machine in machines.items() if (numbers := usable(recipe, machine))},
        share=recipe.resources.allow_sharing,
    )


def _wait(row: Any, left: tuple[float, float] | None, asked: _Asked) -> Waiting:
    return Waiting(
        id=row.id,
        owner=row.owner,
        priority=row.priority,
        since=row.created_at.timestamp(),
        nodes=asked.nodes,
        needs=asked.needs,
        usable=asked.usable,
        share=asked.share,
        seconds=row.expected_seconds if left is None else left[1],
        not_before=_epoch(row.not_before),
    )


def _epoch(time: datetime | None) -> float | None:
    return None if time is None else time.timestamp()


def _request_preemption(session: Session, job_ids: Collection[str]) -> None:
    """Waits for none of them: who has it locked may wait for what this pass has locked. The next pass tries again."""
    running = select(Job).where(Job.id.in_(job_ids), Job.status == JobStatus.RUNNING, Job.requested_action.is_(None))
    message = "preempted by a job of a higher priority: it saves, and goes on when there is room"
    for job in session.scalars(running.with_for_update(skip_locked=True)):
        job.requested_action = RequestedAction.PREEMPT
        jobs.tell(session, job, "log", {"level": "info", "message": message})
