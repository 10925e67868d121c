"""Every decision about a running trainer, without a trainer, a database or a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.events import DoneEvent, Event
from contract.status import RequestedAction
from tests.support.fake_trainer import started
from worker.attempt.timing import Timing
from worker.attempt.watch import Peers, Watch

TIMING = Timing(heartbeat=1.0, alone=15.0, exit_after_done=10.0)
CUT_OFF = 120.0
STARTED = started(3, 0)
DONE = DoneEvent(time=1, step=3, completed=True, train_loss=2.0, eval_loss=None)
ALL, LOST, DRAINING = Peers(), Peers(complete=False), Peers(complete=False, draining=True)


def make_watch() -> Watch:
    return Watch(0, CUT_OFF, TIMING)


def tick(
    watch: Watch,
    now: float,
    *events: Event,
    exited: bool = False,
    requested: RequestedAction | None = None,
    peers: Peers | None = ALL,
) -> None:
    """One tick, in which the store is available unless `peers` is None."""
    watch.observe(events, exited, now)
    if watch.must_record():
        if peers is None:
            watch.not_recorded()
        else:
            watch.recorded(requested, peers)


def test_quiet_trainer_is_recorded_once_per_heartbeat() -> None:
    watch = make_watch()
    recorded = []
    for tenth in range(35):
        watch.observe([], False, tenth / 10)
        if watch.must_record():
            watch.recorded(None, Peers())
            recorded.append(tenth)
    assert recorded == [0, 10, 20, 30]


def test_events_and_the_exit_are_recorded_at_once() -> None:
    watch = make_watch()
    tick(watch, 0)
    watch.observe([STARTED], False, 0.2)
    assert watch.must_record()
    watch.recorded(None, Peers())
    watch.observe([], True, 0.4)
    assert watch.must_record()


def test_events_wait_for_an_unavailable_store() -> None:
    watch = make_watch()
    tick(watch, 0, STARTED, peers=None)
    tick(watch, 1, DONE, exited=True, peers=None)
    assert watch.unrecorded == [STARTED, DONE]
    assert (watch.started, watch.done) == (STARTED, DONE)
    tick(watch, 2, exited=True, peers=None)
    assert not watch.is_over()
    tick(watch, 3, exited=True)
    assert watch.unrecorded == []
    assert watch.is_over()


def test_watch_is_over_when_nothing_more_can_come() -> None:
    watch = make_watch()
    tick(watch, 0, STARTED)
    assert not watch.is_over()
    # The trainer may have written more after these were read.
    tick(watch, 1, DONE, exited=True)
    assert not watch.is_over()
    tick(watch, 2, exited=True)
    assert watch.is_over()


@pytest.mark.parametrize("requested", list(RequestedAction))
def test_every_request_stops_the_trainer_once(requested: RequestedAction) -> None:
    watch = make_watch()
    tick(watch, 0)
    assert not watch.must_stop(draining=False)
    tick(watch, 1, requested=requested)
    assert watch.must_stop(draining=False)
    assert not watch.must_stop(draining=False)
    assert watch.excused
    assert not watch.lost_peer


def test_withdrawn_request_still_excuses_the_stop() -> None:
    watch = make_watch()
    tick(watch, 0, requested=RequestedAction.PAUSE)
    assert watch.must_stop(draining=False)
    tick(watch, 1)
    assert watch.requested is None
    assert not watch.must_stop(draining=False)
    assert watch.excused


@pytest.mark.parametrize(("draining", "peers"), [(True, Peers()), (False, DRAINING)])
def test_draining_worker_stops_the_trainer(draining: bool, peers: Peers) -> None:
    watch = make_watch()
    tick(watch, 0, peers=peers)
    assert watch.must_stop(draining=draining)
    assert watch.excused
    assert not watch.lost_peer


def test_lost_database_stops_the_trainer_after_the_cut_off() -> None:
    watch = make_watch()
    tick(watch, 0)
    tick(watch, CUT_OFF, peers=None)
    assert not watch.must_stop(draining=False)
    tick(watch, CUT_OFF + 1, peers=None)
    assert watch.must_stop(draining=False)
    assert watch.excused


def test_lost_peer_stops_the_trainer_after_a_while() -> None:
    watch = make_watch()
    for now in range(16):
        tick(watch, now, peers=LOST)
        assert not watch.must_stop(draining=False)
    tick(watch, 16, peers=LOST)
    assert watch.must_stop(draining=False)
    assert watch.lost_peer
    assert not watch.excused


def test_returned_peer_is_not_lost() -> None:
    watch = make_watch()
    tick(watch, 0, peers=LOST)
    tick(watch, 10)
    tick(watch, 11, peers=LOST)
    tick(watch, 20, peers=LOST)
    assert not watch.must_stop(draining=False)


def test_unavailable_store_says_nothing_about_peers() -> None:
    watch = make_watch()
    tick(watch, 0, peers=LOST)
    for now in range(1, 100):
        tick(watch, now, peers=None)
        assert not watch.must_stop(draining=False)


def test_forced_cancel_kills_once() -> None:
    watch = make_watch()
    tick(watch, 0, requested=RequestedAction.CANCEL)
    assert not watch.must_kill()
    tick(watch, 1, requested=RequestedAction.FORCE_CANCEL)
    assert watch.must_kill()
    assert not watch.must_kill()


def test_trainer_that_hangs_after_its_end_is_killed() -> None:
    watch = make_watch()
    tick(watch, 0, DONE)
    tick(watch, 10)
    assert not watch.must_kill()
    tick(watch, 10.2)
    assert watch.must_kill()
    # The signal to stop would come after the kill.
    assert not watch.must_stop(draining=True)
    assert watch.excused


STEPS = st.tuples(
    st.sampled_from([(), (STARTED,), (DONE,)]),
    st.sampled_from([None, *RequestedAction]),
    st.sampled_from([None, Peers(), LOST, DRAINING]),
    st.booleans(),
    st.floats(0.1, 200),
)


@given(st.lists(STEPS, max_size=30))
def test_trainer_gets_each_signal_once_and_every_event_is_recorded(steps: list) -> None:  # type: ignore[type-arg]
    watch = make_watch()
    now, stops, kills, seen = 0.0, 0, 0, 0
    recorded: list[Event] = []
    for events, requested, peers, draining, seconds in steps:
        now += seconds
        seen += len(events)
        watch.observe(events, False, now)
        if watch.must_record() and peers is not None:
            recorded += watch.unrecorded
            watch.recorded(requested, peers)
        assert not watch.is_over()
        stops += watch.must_stop(draining)
        kills += watch.must_kill()
    assert stops <= 1
    assert kills <= 1
    assert len(recorded) + len(watch.unrecorded) == seen
    assert not (watch.lost_peer and stops == 0)
