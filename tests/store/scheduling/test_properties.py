"""What holds of any plan."""

import dataclasses
import random
import time
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.scheduling.planner import plan
from store.scheduling.reasons import CODES
from store.scheduling.situation import DeviceRef, Host, Occupant, Waiting
from tests.sentences import is_sentence
from tests.store.scheduling.factories import NOW, A, job, machine

HOSTS = st.lists(
    st.builds(
        lambda devices, held: machine("", devices, held),
        st.integers(1, 4),
        st.sets(st.integers(0, 3), max_size=1),
    ),
    max_size=3,
).map(lambda hosts: [dataclasses.replace(host, name="abc"[n]) for n, host in enumerate(hosts)])
ENDS = st.none() | st.integers(900, 1100).map(float)


@st.composite
def jobs(draw: st.DrawFn, /, id: str = "", **given: object) -> Waiting:
    names = draw(st.sets(st.sampled_from("abcd"), min_size=1))
    usable = {name: draw(st.frozensets(st.integers(0, 3), min_size=1)) for name in sorted(names)}
    words: dict[str, object] = {
        "id": id,
        "owner": draw(st.sampled_from(["ann", "bob", "cy"])),
        "priority": draw(st.integers(0, 2)),
        "since": draw(st.integers(0, 5)),
        "nodes": draw(st.integers(1, 3)),
        "needs": {name: draw(st.integers(1, 3)) for name in usable},
        "usable": usable,
        "share": draw(st.booleans()),
        "seconds": draw(st.none() | st.integers(1, 50).map(float)),
        "not_before": draw(st.sampled_from([None, None, None, 999.0, 1005.0])),
    }
    return Waiting(**{**words, **given})  # type: ignore[arg-type]


WAITING = st.lists(jobs(), max_size=6).map(
    lambda many: [dataclasses.replace(each, id=f"job-{n}") for n, each in enumerate(many)]
)


@st.composite
def occupied(draw: st.DrawFn) -> list[Occupant]:
    """A state into which plans may have led, on machines of which some may be lost."""
    taken: list[Occupant] = []
    for n in range(draw(st.integers(0, 6))):
        share, wanted = draw(st.booleans()), draw(st.sets(st.tuples(st.sampled_from("abcd"), st.integers(0, 3))))
        devices = [DeviceRef(*device) for device in sorted(wanted)]
        devices = [device for device in devices if may_join(share, [each for each in taken if device in each.devices])]
        preemptible, leaving = draw(st.booleans()), draw(st.integers(0, 4)) == 0
        taken.append(
            Occupant(
                id=f"run-{n}",
                owner=draw(st.sampled_from(["ann", "bob", "cy"])),
                priority=draw(st.integers(0, 2)),
                devices=tuple(devices[:5]),
                share=share,
                preemptible=preemptible,
                leaving=leaving,
                started=float(draw(st.integers(0, 9))),
                ends=draw(ENDS),
            )
        )
    return [each for each in taken if each.devices]


def may_join(share: bool, others: Sequence[Occupant]) -> bool:
    return not others or (share and len(others) == 1 and others[0].share)


def without(occupants: Iterable[Occupant], gone: Iterable[str]) -> list[Occupant]:
    ids = set(gone)
    return [occupant for occupant in occupants if occupant.id not in ids]


@given(HOSTS, WAITING, occupied())
def test_every_job_starts_or_has_a_position(
    hosts: list[Host], waiting: list[Waiting], occupants: list[Occupant]
) -> None:
    made = plan(NOW, hosts, waiting, occupants)
    assert sorted([*made.starts, *made.waits]) == sorted(each.id for each in waiting)
    assert [wait.position for wait in made.waits.values()] == list(range(1, len(made.waits) + 1))
    assert all(is_sentence(wait.reason) for wait in made.waits.values())
    assert {wait.code for wait in made.waits.values()} <= set(CODES)
    assert all(wait.estimated_start is None or wait.estimated_start >= NOW for wait in made.waits.values())


@given(HOSTS, WAITING, occupied())
def test_job_gets_all_devices_on_distinct_machines(
    hosts: list[Host], waiting: list[Waiting], occupants: list[Occupant]
) -> None:
    by_id, by_name = {each.id: each for each in waiting}, {host.name: host for host in hosts}
    made = plan(NOW, hosts, waiting, occupants)
    taken = list(occupants)
    for id, devices in made.starts.items():
        started = by_id[id]
        workers = list(dict.fromkeys(device.worker for device in devices))
        assert len(workers) == started.nodes
        assert list(devices) == sorted(devices, key=lambda device: (workers.index(device.worker), device.number))
        for worker in workers:
            numbers = {device.number for device in devices if device.worker == worker}
            assert len(numbers) == started.needs[worker]
            host = by_name[worker]
            assert numbers <= started.usable[worker] & (frozenset(range(host.devices)) - host.busy)
        for device in devices:
            assert may_join(started.share, [each for each in taken if device in each.devices])
        taken.append(Occupant(id, started.owner, started.priority, devices, started.share))
        assert started.not_before is None or started.not_before <= NOW


@given(HOSTS, WAITING, occupied(), st.randoms(use_true_random=False))
def test_plan_depends_on_nothing_but_what_is_there(
    hosts: list[Host], waiting: list[Waiting], occupants: list[Occupant], order: random.Random
) -> None:
    made = plan(NOW, hosts, waiting, occupants)
    mixed = [order.sample(things, len(things)) for things in (hosts, waiting, occupants)]
    again = plan(NOW, *mixed)  # type: ignore[arg-type]
    assert again == made
    assert list(again.waits) == list(made.waits)


@given(HOSTS, jobs(id="urgent", not_before=None), occupied())
def test_only_needed_jobs_are_preempted_and_usefully(
    hosts: list[Host], urgent: Waiting, occupants: list[Occupant]
) -> None:
    made = plan(NOW, hosts, [urgent], occupants)
    leaving = {each.id for each in occupants if each.leaving}
    lower = {each.id for each in occupants if each.preemptible and each.priority < urgent.priority} - leaving
    assert lower.issuperset(made.preempt)

    def fits_without(gone: set[str]) -> bool:
        return bool(plan(NOW, hosts, [urgent], without(occupants, gone)).starts)

    if made.preempt:
        assert fits_without(leaving.union(made.preempt))
        assert not any(fits_without(leaving.union(made.preempt) - {requested}) for requested in made.preempt)
    else:
        assert made.starts or fits_without(leaving) or not fits_without(leaving | lower)


@given(HOSTS, WAITING, occupied())
def test_nobody_steps_aside_for_an_equal_nor_twice(
    hosts: list[Host], waiting: list[Waiting], occupants: list[Occupant]
) -> None:
    made = plan(NOW, hosts, waiting, occupants)
    by_id = {each.id: each for each in occupants}
    requested = [by_id[id] for id in made.preempt]
    highest = max((each.priority for each in waiting), default=0)
    assert len(set(made.preempt)) == len(requested)
    assert all(each.preemptible and not each.leaving and each.priority < highest for each in requested)


class Service:
    """Runs what is planned; a job ends when its time has passed, whether the plan knew it or not."""

    def __init__(self, hosts: list[Host], occupants: Iterable[Occupant] = ()) -> None:
        self.now, self.hosts = NOW, hosts
        self.waiting: dict[str, tuple[Waiting, float]] = {}
        self.running = [(each, each.ends or 0.0) for each in occupants]
        self.started: dict[str, float] = {}

    def submit(self, wanted: Waiting, seconds: float) -> None:
        self.waiting[wanted.id] = wanted, seconds

    def step(self) -> None:
        self.running = [(each, ends) for each, ends in self.running if ends > self.now]
        jobs = [wanted for wanted, _ in self.waiting.values()]
        made = plan(self.now, self.hosts, jobs, [each for each, _ in self.running])
        assert not made.preempt
        for id, devices in made.starts.items():
            self.started[id] = self.now
            wanted, seconds = self.waiting.pop(id)
            expected = None if wanted.seconds is None else self.now + wanted.seconds
            begun = Occupant(id, wanted.owner, wanted.priority, devices, wanted.share, started=self.now, ends=expected)
            self.running.append((begun, self.now + seconds))
        self.now = min((ends for _, ends in self.running), default=self.now + 1)


def started(service: Service, id: str) -> float:
    for _ in range(40):
        if id in service.started:
            break
        service.step()
    return service.started.get(id, float("inf"))


@given(
    HOSTS, jobs(id="large", priority=3, not_before=None), WAITING, occupied(), st.lists(ENDS, min_size=6, max_size=6)
)
def test_backfilled_jobs_do_not_delay_large_ones(
    hosts: list[Host], large: Waiting, small: list[Waiting], occupants: list[Occupant], seconds: list[float | None]
) -> None:
    known = [
        dataclasses.replace(each, ends=(each.ends or 1000) + 1, preemptible=False, leaving=False) for each in occupants
    ]
    alone, crowd = Service(hosts, known), Service(hosts, known)
    for service in (alone, crowd):
        service.submit(large, 10)
    for each, unknown in zip(small, seconds, strict=False):
        crowd.submit(each, each.seconds or (unknown or 1000) - 890)
    assert started(crowd, "large") <= started(alone, "large")


@pytest.mark.parametrize("gpus", [(1, 1), (4, 1), (1, 4), (3, 4)])
@pytest.mark.parametrize("known", [True, False])
def test_neither_of_two_busy_owners_starves(gpus: tuple[int, int], known: bool) -> None:
    service = Service([A])
    submitted: dict[str, float] = {}
    for turn in range(100):
        for owner, size in zip(("ann", "bob"), gpus, strict=True):
            # Ann sends three for each of Bob's.
            for n in range(3 if owner == "ann" else 1):
                id, seconds = f"{owner}-{turn:03}-{n}", 10.0 + (turn * 7 + n) % 5
                if sum(each.owner == owner for each, _ in service.waiting.values()) < 5:
                    submitted[id] = service.now
                    reported = seconds if known else None
                    wanted = job(id, A, gpus=size, owner=owner, since=service.now, seconds=reported)
                    service.submit(wanted, seconds)
        service.step()
    for owner in ("ann", "bob"):
        waited = [at - submitted[id] for id, at in service.started.items() if id.startswith(owner)]
        assert len(waited) >= 10
        assert max(waited) < 150
        still = [service.now - submitted[id] for id in service.waiting if id.startswith(owner)]
        assert max(still, default=0) < 150


def test_four_times_the_jobs_take_four_times_as_long() -> None:
    hosts = [machine(f"gpu-{n:02}", 8) for n in range(16)]
    taken = [Occupant(f"r{n}", "ann", 0, (DeviceRef(hosts[n // 8].name, n % 8),), ends=1100.0 + n) for n in range(128)]
    waiting = [job(f"j{n}", *hosts, gpus=1 + n % 4, owner=f"o{n % 7}", since=n, seconds=60) for n in range(1000)]

    def seconds(jobs: int) -> float:
        begun = time.process_time()
        made = plan(NOW, hosts, waiting[:jobs], taken)
        assert len(made.waits) == jobs
        return time.process_time() - begun

    # What grows with the square takes sixteen times as long.
    assert min(seconds(1000) for _ in range(3)) < 8 * min(seconds(250) for _ in range(3))
