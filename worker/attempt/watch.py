"""Decides what a worker does with a running trainer: record, stop, kill, or leave because it is over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contract.events import DoneEvent, Event, StartedEvent
from contract.status import RequestedAction
from store.scheduling.situation import Wait
from worker.attempt.timing import NORMAL, Timing


@dataclass(frozen=True)
class Peers:
    """The other machines of an attempt, as the store knows them."""

    complete: bool = True
    """Every machine of the attempt still has its part and sends heartbeats."""
    draining: bool = False
    """The worker of one of them is about to stop."""


class Watch:
    """The state of one trainer, tick by tick, and the decisions that follow from it. It does no I/O and reads no clock.

    A tick is `observe`, then `recorded` or `not_recorded` if `must_record()`, then the other decisions.
    """

    def __init__(self, now: float, cut_off: float, timing: Timing = NORMAL) -> None:
        self.started: StartedEvent | None = None
        self.done: DoneEvent | None = None
        self.requested: RequestedAction | None = None
        """What the owner has requested, as of the last record."""
        self.excused = False
        """The trainer was stopped, and not for a fault: on a request, which the owner may have withdrawn since, or
        because a worker drains or has lost the database."""
        self.lost_peer = False
        """The trainer was stopped because another machine had lost its part of the attempt."""
        self.unrecorded: list[Event] = []
        """Events that the store does not have yet."""
        self.wait: Wait | None = None
        """Why the trainer has not begun."""
        self._recorded_wait: Wait | None = None
        self._cut_off = cut_off
        self._timing = timing
        self._now = now
        self._exited = False
        self._is_quiet = False
        self._recorded_at = now
        self._next_record = now
        self._done_at = math.inf
        self._incomplete_since = math.inf
        self._peer_drains = False
        self._stopped = False
        self._killed = False

    def observe(self, events: Sequence[Event], exited: bool, now: float, wait: Wait | None = None) -> None:
        """Begins a tick with the events since the last one. `exited` was true before they were read."""
        self.wait = wait
        self._now, self._exited, self._is_quiet = now, exited, not events
        self.unrecorded += events
        for event in events:
            if isinstance(event, StartedEvent):
                self.started = event
            elif isinstance(event, DoneEvent):
                self.done = event
        if self.done is not None:
            self._done_at = min(self._done_at, now)

    def must_record(self) -> bool:
        """Whether to write to the store: at once when there is something to write, else once per heartbeat."""
        return bool(self.unrecorded) or self.wait_changed or self._exited or self._now >= self._next_record

    @property
    def wait_changed(self) -> bool:
        return self.wait != self._recorded_wait

    def recorded(self, requested: RequestedAction | None, peers: Peers) -> None:
        """The store has all events and has renewed the lease."""
        self.unrecorded.clear()
        self.requested, self._recorded_wait = requested, self.wait
        self._recorded_at, self._next_record = self._now, self._now + self._timing.heartbeat
        if peers.complete:
            self._incomplete_since = math.inf
        else:
            self._incomplete_since = min(self._incomplete_since, self._now)
            self._peer_drains = peers.draining

    def not_recorded(self) -> None:
        """The store was unavailable. The events wait."""
        self._next_record = self._now + self._timing.heartbeat

    def is_over(self) -> bool:
        """Whether the trainer has exited and the store has everything that it reported."""
        return self._exited and self._is_quiet and not self.unrecorded

    def must_stop(self, draining: bool) -> bool:
        """Whether to send the trainer the signal to save and stop: true once. `draining`: this worker is to stop."""
        is_cut_off = self._now - self._recorded_at > self._cut_off
        self.excused |= self.requested is not None or draining or self._peer_drains or is_cut_off
        if self._stopped or self._killed or not (self.excused or self._is_alone()):
            return False
        self._stopped, self.lost_peer = True, not self.excused
        return True

    def must_kill(self) -> bool:
        """Whether to kill the trainer: true once. On a forced cancel, or when it does not exit after its last event."""
        hangs = self._now - self._done_at > self._timing.exit_after_done
        if self._killed or not (hangs or self.requested is RequestedAction.FORCE_CANCEL):
            return False
        self._killed = True
        return True

    def _is_alone(self) -> bool:
        """A machine that has lost the others trains no further, and may not notice."""
        return self._recorded_at - self._incomplete_since > self._timing.alone
