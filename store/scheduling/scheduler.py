"""Runs the planner on the rows, and writes what it decides.

benchmarks/claims.py promises 500 claims a second with 10,000 waiting jobs and 1,024 devices. That is why a pass reads a
few jobs of each shape (models.Job.shape), asks first whether any room can be made, and builds no objects of the leases.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session, aliased

from contract.status import JobStatus, RequestedAction
from store.jobs import jobs
from store.jobs.jobs import QueuedJob
from store.models import Device, Job, Lease, Worker
from store.scheduling import inference, leases, reading, reasons
from store.scheduling.leases import Placement
from store.scheduling.planner import plan
from store.scheduling.situation import DeviceRef, Host, Occupant, Wait

_SPARE_JOBS = 8
"""Jobs read beyond the number of free devices. If more than these cannot start, the pass reads all."""


def schedule(session: Session) -> list[Placement]:
    """Gives devices to the jobs whose turn it is, and preempts the jobs that must make room."""
    connection = session.connection()
    if not reading.any_ready(connection):
        return []
    reading.lock_pass(connection)
    leases.revoke_not_started(session)
    if not connection.scalar(_CAN_MAKE_ROOM):
        return []
    found = reading.read_machines(connection, locked=True)
    room = _room(found.hosts, found.occupants)
    most = min(room + _SPARE_JOBS, reading.MOST_PER_SHAPE)
    queue = reading.read_ready(connection, found.machines, most)
    decision = plan(found.now, found.hosts, queue.waiting, found.occupants, queue.most_running)
    used = {place for places in decision.starts.values() for place in places}
    if most < reading.MOST_PER_SHAPE and len(used) < room:
        queue = reading.read_ready(connection, found.machines, reading.MOST_PER_SHAPE)
        decision = plan(found.now, found.hosts, queue.waiting, found.occupants, queue.most_running)
    if decision.preempt:
        _request_preemption(session, decision.preempt)
        inference.stop(session, decision.preempt)
    if not decision.starts:
        return []
    still_queued = (Job.id.in_(decision.starts), Job.status == JobStatus.QUEUED)
    rows = select(Job.id, Job.attempt, Job.traceparent).where(*still_queued)
    before = {row.id: row for row in connection.execute(rows.with_for_update(skip_locked=True))}
    shares = {each.id: each.share for each in queue.waiting}
    placed = [
        Placement(job_id, before[job_id].attempt + 1, places, shares[job_id], before[job_id].traceparent)
        for job_id, places in decision.starts.items()
        if job_id in before
    ]
    leases.place(session, placed)
    return placed


def outlook(session: Session, queued: Sequence[Job | QueuedJob]) -> dict[str, Wait]:
    """Why and how long each of these queued jobs is expected to wait."""
    connection = session.connection()
    read = reading.read_machines(connection)
    queue = reading.read_queue(connection, read.machines)
    decision = plan(read.now, read.hosts, queue.waiting, read.occupants, queue.most_running)
    starts = {each.id: each.devices for each in read.occupants if not each.leaving} | decision.starts
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for owner_and_shape, waiting in zip(queue.kinds, queue.waiting, strict=True):
        places[owner_and_shape].append(decision.waits[waiting.id].position if waiting.id in decision.waits else 0)
    found = {}
    for job in queued:
        if job.id in starts:
            found[job.id] = reasons.starts_now(starts[job.id][0].worker).wait(1, read.now)
        elif job.id in decision.waits:
            found[job.id] = decision.waits[job.id]
        else:
            # All jobs read of its owner and shape come before it, and so does what comes before the last of them.
            before = places[job.owner, job.shape]
            count = max(len(before), *before, 0)
            found[job.id] = reasons.many_before(count).wait(count + 1, None)
    return found


def _can_make_room() -> Select[tuple[bool]]:
    """A query for whether any device is free of jobs, or may be freed for a job of a higher priority. Most passes end
    with it."""
    users = select(Lease.worker, Lease.number, func.sum(case((Lease.shared, 1), else_=2)).label("count"))
    taken = users.group_by(Lease.worker, Lease.number).subquery()
    its = (taken.c.worker == Device.worker) & (taken.c.number == Device.number)
    free = select(Device.number).join(Worker, Worker.name == Device.worker).outerjoin(taken, its)
    free = free.where(
        *reading.THERE, ~Worker.low_disk, Device.external_processes.is_(None), func.coalesce(taken.c.count, 0) < 2
    )
    highest = select(func.max(Job.priority)).where(*reading.READY).scalar_subquery()
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


def _request_preemption(session: Session, job_ids: Collection[str]) -> None:
    """Skips jobs that are locked: the holder may wait for rows that this pass has locked. The next pass tries again."""
    running = select(Job).where(Job.id.in_(job_ids), Job.status == JobStatus.RUNNING, Job.requested_action.is_(None))
    message = "preempted by a job of a higher priority: it saves, and goes on when there is room"
    for job in session.scalars(running.with_for_update(skip_locked=True)):
        job.requested_action = RequestedAction.PREEMPT
        jobs.record_event(session, job, "log", {"level": "info", "message": message})
