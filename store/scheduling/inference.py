"""Inference servers: which base models are wanted, on which device each runs, and what became of it.

A row goes from wanted to starting, when it gets a device, and to ready. It is stopping until none of its processes is
left; then it is deleted, and its device is free.
"""

import secrets
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract import ids
from contract.failure import Failure, FailureCode
from store.models import InferenceServer, Worker
from store.scheduling import reading
from store.scheduling.planner import plan
from store.scheduling.reading import Machines
from store.scheduling.situation import SHARERS, DeviceRef
from store.scheduling.workers import SILENCE

ON_DEVICE = ("starting", "ready", "stopping")
_RUNS = ("starting", "ready")

WANTED = timedelta(seconds=30)
"""How long a server is wanted after the last request for it."""
_SPARED = timedelta(seconds=10)
"""A server whose last request is older by so much gives its device to another base model."""
_BACKGROUND = timedelta(seconds=15)
"""A request in the background counts as one that was made so long ago: a person's request for another base model gets
the device, and another one in the background does not."""
FAILED = timedelta(seconds=30)
"""How long one that could not start is not tried again."""
_AVOIDED = timedelta(minutes=10)
"""How long a device comes last after a server could not start there."""


def want(session: Session, base: str, background: bool = False) -> InferenceServer:
    """The server of a base model, which starts if a device is free. Counts as a request for it, of a person or in the
    `background`."""
    stop_unseen(session)  # the only worker may be gone: no other one does this
    failed_long_ago = (InferenceServer.state == "failed", InferenceServer.changed_at < func.now() - FAILED)
    again = update(InferenceServer).where(InferenceServer.base == base, *failed_long_ago)
    again = again.values(_wanted() | {"failure": None, "changed_at": func.now()})
    session.execute(again, execution_options={"synchronize_session": False})
    used_at = _used_at(background)
    row = _wanted() | {"base": base, "used_at": used_at}
    only = text("state <> 'stopping'")  # the words of the index
    put = insert(InferenceServer).values(row)
    put = put.on_conflict_do_update(index_elements=["base"], index_where=only, set_={"used_at": _later(used_at)})
    return session.scalars(put.returning(InferenceServer), execution_options={"populate_existing": True}).one()


def use(session: Session, server_id: str, background: bool = False) -> None:
    """Counts as a request for it, of a person or in the `background`."""
    used = update(InferenceServer).where(InferenceServer.id == server_id)
    session.execute(used.values(used_at=_later(_used_at(background))))


def _used_at(background: bool) -> ColumnElement[datetime]:
    return func.now() - _BACKGROUND if background else func.now()


def _later(used_at: ColumnElement[datetime]) -> ColumnElement[datetime]:
    """That, or the last request if it was later."""
    return func.greatest(InferenceServer.used_at, used_at)


def _wanted() -> dict[str, str]:
    return {"id": ids.new_id(ids.INFERENCE_SERVER), "state": "wanted", "secret": secrets.token_urlsafe(32)}


def place(session: Session) -> None:
    """Gives a free device to each wanted server, after the waiting jobs have got theirs; those that people want come
    first. Where none is free, another one that nobody has used for a while makes room."""
    recent = (InferenceServer.state == "wanted", InferenceServer.used_at >= func.now() - WANTED)
    if session.scalar(select(InferenceServer.id).where(*recent).limit(1)) is None:
        return
    reading.lock_pass(session.connection())
    in_background = InferenceServer.used_at <= func.now() - _BACKGROUND
    order = (in_background, InferenceServer.changed_at)
    wanted = session.scalars(select(InferenceServer).where(*recent).order_by(*order)).all()
    free = _free_devices(session)
    for server, device in zip(wanted, free, strict=False):
        _move(session, server.id, "starting", worker=device.worker, number=device.number, seen_at=func.now())
    if len(wanted) > len(free):
        _make_room(session, wanted[len(free) :])


def _free_devices(session: Session) -> list[DeviceRef]:
    """Devices without a user, or whose only job shares; the best one first."""
    found = reading.read_machines(session.connection(), locked=True)
    rows = session.execute(select(Worker.name, Worker.inference, Worker.inference_shares)).all()
    allowed = {row.name: row.inference for row in rows}
    most_users = {row.name: SHARERS - 1 if row.inference_shares else 0 for row in rows}
    jobs_wait = reading.any_ready(session.connection())
    claimed = _claimed(session, found) if jobs_wait else frozenset()
    users = Counter[DeviceRef]()
    for each in found.occupants:
        shares = each.share and not each.id.startswith(ids.INFERENCE_SERVER)
        users.update(dict.fromkeys(each.devices, 1 if shares else SHARERS))
    devices = [
        DeviceRef(host.name, number)
        for host in found.hosts
        # Only one that may be preempted goes ahead of jobs that wait for more than this device.
        if allowed[host.name] != "off" and not (jobs_wait and allowed[host.name] == "kept")
        for number in range(host.devices)
        if number not in host.busy and DeviceRef(host.name, number) not in claimed
    ]
    gpus = {host.name for host in found.hosts if host.unit == "GPU"}
    failed = _failed_devices(session)

    def order(device: DeviceRef) -> tuple[bool, bool, int, DeviceRef]:
        return device in failed, device.worker not in gpus, users[device], device

    return sorted((each for each in devices if users[each] <= most_users[each.worker]), key=order)


def _failed_devices(session: Session) -> set[DeviceRef]:
    """Those on which a server could not start lately, through no fault of its model."""
    lately = (InferenceServer.failed_worker.is_not(None), InferenceServer.changed_at >= func.now() - _AVOIDED)
    failed = select(InferenceServer.failed_worker, InferenceServer.failed_number)
    rows = session.execute(failed.where(*lately))
    return {DeviceRef(row.failed_worker, row.failed_number) for row in rows}


def _claimed(session: Session, found: Machines) -> frozenset[DeviceRef]:
    """Devices on which waiting jobs start now, or once others have left. Without them a job that needs several would
    have one server end after the other."""
    queue = reading.read_ready(session.connection(), found.machines, reading.MOST_PER_SHAPE)
    decision = plan(found.now, found.hosts, queue.waiting, found.occupants, queue.most_running)
    return decision.claimed.union(*decision.starts.values())


def _make_room(session: Session, wanted: Sequence[InferenceServer]) -> None:
    """Has a server end for each of these that was requested later by a while, with those that are ending already."""
    ending = (InferenceServer.state == "stopping", InferenceServer.seen_at >= func.now() - SILENCE)
    has_room = session.scalar(select(func.count()).select_from(InferenceServer).where(*ending)) or 0
    ready = select(InferenceServer).where(InferenceServer.state == "ready").order_by(InferenceServer.used_at)
    newest = sorted(wanted[has_room:], key=lambda each: each.used_at, reverse=True)
    pairs = zip(newest, session.scalars(ready).all(), strict=False)
    stop(session, [server.id for another, server in pairs if server.used_at < another.used_at - _SPARED])


def stop(session: Session, server_ids: Collection[str]) -> None:
    """Has these end. Requests for their base models want new ones from now on."""
    running = (InferenceServer.id.in_(server_ids), InferenceServer.state.in_(_RUNS))
    session.execute(update(InferenceServer).where(*running).values(state="stopping", changed_at=func.now()))


def stop_all(session: Session, worker: str) -> None:
    """Has all of a worker's end."""
    mine = select(InferenceServer.id).where(InferenceServer.worker == worker)
    stop(session, session.scalars(mine).all())


def stop_unseen(session: Session) -> None:
    """Has those end whose workers have gone silent, so that others answer in their place."""
    unseen = (InferenceServer.seen_at < func.now() - SILENCE, InferenceServer.state.in_(_RUNS))
    stop(session, session.scalars(select(InferenceServer.id).where(*unseen)).all())


def report(session: Session, worker: str) -> list[InferenceServer]:
    """The servers that have a device of this worker, which is there and looks after them."""
    mine = update(InferenceServer).where(InferenceServer.worker == worker).values(seen_at=func.now())
    rows = mine.returning(InferenceServer)
    return list(session.scalars(rows, execution_options={"populate_existing": True}))


def set_ready(session: Session, server_id: str, address: str) -> None:
    starting = (InferenceServer.id == server_id, InferenceServer.state == "starting")
    values = {"state": "ready", "address": address, "changed_at": func.now()}
    session.execute(update(InferenceServer).where(*starting).values(values))


def end(session: Session, server_id: str, failure: Failure | None) -> None:
    """Frees its device, once none of its processes is left. With a `failure` it could not start."""
    server = session.get(InferenceServer, server_id, with_for_update=True)
    if server is None:
        return
    if failure is None or server.state == "stopping":
        session.delete(server)
        return
    values: dict[str, object] = {"worker": None, "number": None, "failure": failure.model_dump(mode="json")}
    if failure.code.retryable or failure.code is FailureCode.OUT_OF_MEMORY:
        values |= {"failed_worker": server.worker, "failed_number": server.number}
    _move(session, server_id, "failed", **values)


def _move(session: Session, server_id: str, state: str, **values: object) -> None:
    moved = update(InferenceServer).where(InferenceServer.id == server_id)
    session.execute(moved.values(state=state, changed_at=func.now(), **values))
