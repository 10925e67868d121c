"""Follows a running trainer: records its events, renews the lease, and passes on what its owner requests."""

import logging
import time
from collections.abc import Sequence

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from contract.events import Event, PhaseEvent
from runtime import tracing
from store.jobs import jobs, progress
from store.scheduling import workers
from worker.attempt.context import Attempt
from worker.attempt.tail import Tail
from worker.attempt.watch import Peers, Watch
from worker.launchers.launcher import Trainer
from worker.machine import devices
from worker.transaction import JobGivenUp

log = logging.getLogger(__name__)


def follow(attempt: Attempt, nodes: int, trainer: Trainer) -> tuple[Watch, dict[int, int]]:
    """Returns once the trainer has exited and everything it reported is recorded.

    Returns what was seen, and the memory in use on each GPU just before a stop, empty without one. Raises StaleAttempt
    while the trainer may still run, and JobGivenUp once it has exited: its events are read again by the next
    attempt.
    """
    watch = Watch(time.monotonic(), attempt.settings.cut_off.total_seconds(), attempt.timing)
    tail = Tail(attempt.run_dir.events)
    memory: dict[int, int] = {}
    while True:
        exited = trainer.poll() is not None
        watch.observe(tail.read(), exited, time.monotonic(), trainer.waits())
        if watch.must_record():
            _record(attempt, nodes, watch, exited)
        if watch.is_over():
            return watch, memory
        if watch.must_stop(attempt.draining()):
            memory = devices.memory_used(attempt.machine, attempt.part.devices)
            trainer.stop()
        if watch.must_kill():
            trainer.kill()
        time.sleep(attempt.timing.tick)


def _record(attempt: Attempt, nodes: int, watch: Watch, exited: bool) -> None:
    part = attempt.part
    try:
        with attempt.sessions.begin() as session:
            events, lease = watch.unrecorded, attempt.settings.lease
            requested = progress.record(session, part.job_id, part.attempt, events, lease)
            if watch.wait_changed:
                jobs.record_wait(session, part.job_id, part.attempt, watch.wait)
            peers = Peers() if nodes == 1 else _peers(session, attempt, nodes)
    except OperationalError as error:
        if attempt.patience.failed() and exited:
            raise JobGivenUp(f"job {part.job_id}: its last events are not recorded") from error
        log.warning("job %s: the database is unavailable, events wait: %s", part.job_id, error)
        watch.not_recorded()
    else:
        attempt.patience.succeeded()
        _trace(attempt, watch.unrecorded)
        watch.recorded(requested, peers)


def _trace(attempt: Attempt, events: Sequence[Event]) -> None:
    """Turns the phases of the trainer's start into spans, so that the trainer needs no OpenTelemetry."""
    for event in events:
        if isinstance(event, PhaseEvent):
            times = (event.time - event.seconds, event.time)
            tracing.record(f"trainer.{event.name}", times, attempt.part.traceparent, attempt.trace_attributes)


def _peers(session: Session, attempt: Attempt, nodes: int) -> Peers:
    machines, draining = attempt.machines(session), workers.draining_names(session)
    running = machines & (workers.alive_names(session) - draining)
    return Peers(complete=len(running) == nodes, draining=bool(machines & draining))
