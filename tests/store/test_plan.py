import dataclasses
import random
import time
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.plan import Device, Host, Occupant, Plan, Wait, Waiting, plan

NOW = 1000.0


def machine(name: str, devices: int = 4, held: Iterable[int] = ()) -> Host:
    return Host(name, devices, "GPU", frozenset(held))


A, B = machine("a"), machine("b")


def job(
    id: str,
    *hosts: Host,
    gpus: int = 1,
    nodes: int = 1,
    owner: str = "ann",
    priority: int = 0,
    since: float = 0,
    share: bool = False,
    seconds: float | None = None,
    not_before: float | None = None,
) -> Waiting:
    hosts = hosts or (A, B)
    needs = {host.name: gpus for host in hosts}
    usable = {host.name: frozenset(range(host.devices)) for host in hosts}
    return Waiting(id, owner, priority, since, nodes, needs, usable, share, seconds, not_before)


def running(
    id: str,
    *devices: str,
    owner: str = "ann",
    priority: int = 0,
    share: bool = False,
    preemptible: bool = False,
    leaving: bool = False,
    started: float = 0,
    ends: float | None = None,
) -> Occupant:
    return Occupant(id, owner, priority, on(*devices), share, preemptible, leaving, started, ends)


def on(*devices: str) -> tuple[Device, ...]:
    """ "a0" is the device 0 of the machine a."""
    return tuple(Device(device[0], int(device[1:])) for device in devices)


def full(host: Host, **words: object) -> Occupant:
    devices = [f"{host.name}{number}" for number in range(host.devices)]
    return running(f"all-of-{host.name}", *devices, **words)  # type: ignore[arg-type]


def waits(made: Plan, id: str) -> Wait:
    assert not made.starts.keys() & made.waits.keys()
    return made.waits[id]


# The order


def test_a_higher_priority_goes_first_then_the_older() -> None:
    waiting = [job("young", since=3), job("old", since=1), job("urgent", since=9, priority=1)]
    made = plan(NOW, [A], waiting, [full(A)])
    assert list(made.waits) == ["urgent", "old", "young"]
    assert [wait.place for wait in made.waits.values()] == [1, 2, 3]


def test_the_owner_with_the_fewest_devices_in_use_goes_first() -> None:
    waiting = [job("of-ann", since=1), job("of-bob", owner="bob", since=2)]
    made = plan(NOW, [A], waiting, [running("r", "a0", "a1", "a2", owner="ann")])
    assert made.starts == {"of-bob": on("a3")}


def test_owners_take_turns_where_one_has_sent_many_jobs_before() -> None:
    waiting = [job(f"ann-{n}", since=n) for n in range(6)]
    waiting += [job(f"bob-{n}", owner="bob", since=10 + n) for n in range(6)]
    made = plan(NOW, [A], waiting, [])
    assert list(made.starts) == ["ann-0", "bob-0", "ann-1", "bob-1"]
    assert list(made.waits)[:4] == ["ann-2", "bob-2", "ann-3", "bob-3"]


def test_what_was_given_at_a_higher_priority_counts_for_the_owner() -> None:
    waiting = [job("urgent", priority=1), job("of-ann", since=1), job("of-bob", owner="bob", since=2)]
    assert list(plan(NOW, [A], waiting, []).starts) == ["urgent", "of-bob", "of-ann"]


# Starting


def test_an_owner_has_no_more_jobs_running_than_it_may_have_whatever_is_free() -> None:
    waiting = [job("second", since=1), job("third", since=2), job("of-bob", owner="bob", since=3)]
    made = plan(NOW, [A], waiting, [running("first", "a0")], {"ann": 2})
    assert set(made.starts) == {"second", "of-bob"}
    assert waits(made, "third") == Wait(1, "2 of its owner's jobs run, and no more may at once", None)


def test_a_job_that_its_owners_limit_keeps_back_takes_nothing_from_others() -> None:
    waiting = [job("urgent", gpus=4, priority=9), job("of-bob", gpus=4, owner="bob", since=3)]
    spared = running("first", "a0", preemptible=True)
    made = plan(NOW, [A, B], waiting, [spared], {"ann": 1})
    assert (set(made.starts), made.step_aside) == ({"of-bob"}, ())


def test_a_job_takes_the_machine_with_the_fewest_to_spare_and_the_lowest_numbers() -> None:
    made = plan(NOW, [A, B], [job("j", gpus=2)], [running("r", "b0", "b2")])
    assert made.starts == {"j": on("b1", "b3")}
    assert plan(NOW, [B, A], [job("j")], []).starts == {"j": on("a0")}


def test_a_machine_may_take_fewer_devices_and_only_those_that_can_train_it() -> None:
    wanted = Waiting("j", "ann", 0, 0, 1, {"a": 3, "b": 1}, {"a": frozenset({0, 2}), "b": frozenset({2, 3})})
    assert plan(NOW, [A, B], [wanted], []).starts == {"j": on("b2")}


def test_a_gang_starts_on_machines_of_its_own_or_not_at_all() -> None:
    gang = job("gang", gpus=3, nodes=2)
    assert plan(NOW, [A, B], [gang], []).starts == {"gang": on("a0", "a1", "a2", "b0", "b1", "b2")}
    made = plan(NOW, [A, B], [gang], [running("r", "b0", "b1")])
    assert made.starts == {}
    assert waits(made, "gang").why == "2 machines with 3 GPUs each; 1 has them free"


def test_what_other_programs_hold_and_what_is_on_a_lost_machine_is_never_given() -> None:
    hosts = [machine("a", 2, held=[0])]
    assert plan(NOW, hosts, [job("j"), job("k")], [running("r", "c0")]).starts == {"j": on("a1")}


# Sharing


def test_two_share_a_device_where_both_allow_it() -> None:
    one = machine("a", 1)
    assert plan(NOW, [one], [job("j", share=True)], [running("r", "a0", share=True)]).starts == {"j": on("a0")}
    assert not plan(NOW, [one], [job("j", share=True)], [running("r", "a0")]).starts
    assert not plan(NOW, [one], [job("j")], [running("r", "a0", share=True)]).starts


def test_no_third_joins_two() -> None:
    made = plan(NOW, [machine("a", 1)], [job(id, share=True) for id in "jkl"], [])
    assert made.starts == {"j": on("a0"), "k": on("a0")}


def test_a_sharing_job_joins_another_before_it_takes_an_empty_device() -> None:
    made = plan(NOW, [A, B], [job("j", share=True), job("k", gpus=2, share=True)], [running("r", "b3", share=True)])
    assert made.starts["j"] == on("b3")
    mixed = plan(NOW, [A], [job("k", gpus=2, share=True)], [running("r", "a3", share=True)])
    assert mixed.starts == {"k": on("a0", "a3")}


def test_a_job_that_does_not_share_waits_for_both_who_do() -> None:
    sharing = [running("r", "a0", share=True, ends=1010), running("s", "a0", share=True, ends=1020)]
    made = plan(NOW, [machine("a", 1)], [job("j"), job("k", share=True, priority=1)], sharing)
    assert waits(made, "k").starts == 1010
    # k may run for ever.
    assert waits(made, "j").starts is None
    assert waits(plan(NOW, [machine("a", 1)], [job("j")], sharing), "j").starts == 1020


def test_of_two_halves_of_a_device_the_one_that_is_free_first_counts() -> None:
    taken = [running("r", "a0", share=True), running("s", "a1", ends=1100)]
    made = plan(NOW, [machine("a", 2)], [job("j", A, gpus=2, share=True)], taken)
    assert waits(made, "j").starts == 1100


def test_two_who_share_are_told_the_same_time_and_the_third_a_later_one() -> None:
    waiting = [job(id, share=True, seconds=50) for id in "jkl"]
    made = plan(NOW, [machine("a", 1)], waiting, [running("r", "a0", ends=1100)])
    assert [wait.starts for wait in made.waits.values()] == [1100, 1100, 1150]


# Backfill


def test_a_small_job_passes_a_large_one_only_if_it_ends_before_the_large_one_can_start() -> None:
    large = job("large", A, gpus=4, priority=1)
    small = [job("short", A, seconds=100), job("long", A, seconds=101), job("unknown", A)]
    made = plan(NOW, [A], [large, *small], [running("r", "a0", ends=1100)])
    assert made.starts == {"short": on("a1")}
    assert waits(made, "large").starts == 1100
    assert waits(made, "long").why == "devices that are kept for large, which comes first"
    assert "unknown" in made.waits


def test_nothing_passes_on_what_is_kept_until_nobody_knows_when() -> None:
    large = job("large", A, gpus=4, priority=1)
    made = plan(NOW, [A], [large, job("short", A, seconds=1)], [running("r", "a0")])
    assert made.starts == {}
    assert waits(made, "large").starts is None


def test_a_small_job_avoids_what_is_kept_where_it_can() -> None:
    large = job("large", A, gpus=4, priority=1)
    taken = [running("r", "a0", ends=1100), running("s", "b0")]
    made = plan(NOW, [A, B], [large, job("short", seconds=10), job("unknown")], taken)
    assert made.starts == {"short": on("b1"), "unknown": on("b2")}
    made = plan(NOW, [A, B], [job("gang", nodes=2, priority=1), job("short", A, seconds=10)], [full(B, ends=1100)])
    assert made.starts == {"short": on("a1")}


def test_a_later_job_is_told_a_time_behind_those_before_it() -> None:
    waiting = [job("j", A, gpus=4, seconds=50, since=1), job("k", A, gpus=4, seconds=50, since=2), job("l", A, since=3)]
    made = plan(NOW, [A], waiting, [full(A, ends=1100)])
    assert [wait.starts for wait in made.waits.values()] == [1100, 1150, 1200]


def test_an_unknown_reservation_behind_a_known_one_forbids_nothing_before_it() -> None:
    waiting = [job("large", A, gpus=4, priority=2), job("behind", A, gpus=4, priority=1), job("short", A, seconds=100)]
    made = plan(NOW, [A], [*waiting, job("unknown", A)], [running("r", "a0", ends=1100)])
    assert made.starts == {"short": on("a1")}
    assert waits(made, "unknown").why == "devices that are kept for large, which comes first"


def test_jobs_that_wait_for_nobody_knows_what_are_kept_devices_apart() -> None:
    waiting = [job("j", gpus=4, priority=2), job("k", gpus=4, priority=1), job("small")]
    made = plan(NOW, [A, B], waiting, [running("r", "a0"), running("s", "b0")])
    assert made.starts == {}


def test_where_nobody_knows_when_a_job_waits_for_the_machine_on_which_the_least_is_missing() -> None:
    made = plan(NOW, [A, B], [job("large", gpus=4, priority=1), job("small")], [full(A), running("r", "b0")])
    assert made.starts == {}


def test_why_names_the_one_that_cannot_be_passed() -> None:
    late, soon = job("late", A, gpus=4, priority=1), job("soon", B, gpus=4, priority=1)
    taken = [running("r", "a0", ends=1100), running("s", "b0", ends=1010)]
    made = plan(NOW, [A, B], [late, soon, job("gang", nodes=2, seconds=50)], taken)
    assert waits(made, "gang").why == "devices that are kept for soon, which comes first"


def test_one_that_runs_longer_than_expected_may_end_at_any_time() -> None:
    made = plan(NOW, [A], [job("large", gpus=4), job("small", seconds=1)], [running("r", "a0", ends=900)])
    assert waits(made, "large").starts == NOW
    assert made.starts == {}
    assert waits(plan(NOW, [A], [job("j")], [full(A, ends=900)]), "j").starts == NOW


def test_after_a_failure_a_job_holds_nobody_up_until_it_is_tried_again() -> None:
    failed = job("failed", gpus=4, priority=1, not_before=1011.5)
    made = plan(NOW, [A], [failed, job("j")], [running("r", "a0", ends=1500)])
    assert made.starts == {"j": on("a1")}
    assert made.waits == {"failed": Wait(1, "tries again in 12 s, after a failure", None)}
    assert plan(1011.5, [A], [failed], []).starts


def test_a_job_that_fits_nowhere_holds_nobody_up() -> None:
    waiting = [job("nowhere", machine("c"), priority=1), job("held", gpus=4, priority=1), job("j")]
    made = plan(NOW, [machine("a", 4, held=[3])], waiting, [])
    assert list(made.starts) == ["j"]
    assert waits(made, "nowhere").why == "no machine that can train it is there"
    assert waits(made, "held").why == "4 GPUs on one machine: a has 3 of 4 free and 1 held by other programs"


# Stepping aside


def test_a_running_job_of_a_lower_priority_is_asked_to_step_aside_if_it_allows_it() -> None:
    made = plan(NOW, [A], [job("urgent", priority=1)], [full(A, preemptible=True)])
    assert made.step_aside == ("all-of-a",)
    assert made.waits == {"urgent": Wait(1, "all-of-a to save and step aside", NOW)}
    assert plan(NOW, [A], [job("urgent", priority=1)], [full(A)]).step_aside == ()
    assert plan(NOW, [A], [job("equal")], [full(A, preemptible=True)]).step_aside == ()


def test_nobody_is_asked_where_the_job_would_still_not_fit() -> None:
    taken = [running("r", "a0", preemptible=True), running("s", "a1")]
    assert plan(NOW, [A], [job("urgent", gpus=4, priority=1)], taken).step_aside == ()
    gang = job("gang", gpus=4, nodes=2, priority=1)
    assert plan(NOW, [A, B], [gang], [full(A, preemptible=True), full(B)]).step_aside == ()


def test_the_lowest_priority_is_asked_then_the_one_started_last() -> None:
    taken = [
        running("high", "a0", priority=2, preemptible=True, started=9),
        running("old", "a1", priority=1, preemptible=True, started=1),
        running("new", "a2", priority=1, preemptible=True, started=2),
        running("low", "a3", priority=0, preemptible=True, started=0),
    ]
    asked = [plan(NOW, [A], [job("urgent", gpus=gpus, priority=3)], taken).step_aside for gpus in (1, 2, 3)]
    assert asked == [("low",), ("low", "new"), ("low", "new", "old")]


def test_no_more_are_asked_than_are_needed_and_on_the_machine_where_it_disturbs_least() -> None:
    taken = [running("a-1", "a0", "a1", preemptible=True), running("a-2", "a2", "a3", preemptible=True)]
    taken += [running("b-1", "b0", preemptible=True), running("b-2", "b1", "b2", "b3", preemptible=True, started=1)]
    assert plan(NOW, [A, B], [job("urgent", gpus=3, priority=1)], taken).step_aside == ("b-2",)


@pytest.mark.parametrize(
    ("on_a", "on_b"),
    [([(1, 0)], [(0, 0), (0, 0)]), ([(0, 0), (0, 0)], [(0, 0)]), ([(0, 1)], [(0, 2)])],
)
def test_rather_several_of_a_low_priority_than_one_of_a_higher_then_rather_few_then_young_ones(
    on_a: list[tuple[int, float]], on_b: list[tuple[int, float]]
) -> None:
    hosts = [machine("a", len(on_a)), machine("b", len(on_b))]
    whole = dataclasses.replace(job("urgent", *hosts, priority=2), needs={"a": len(on_a), "b": len(on_b)})
    taken = [
        running(device, device, priority=priority, preemptible=True, started=started)
        for name, those in (("a", on_a), ("b", on_b))
        for device, (priority, started) in ((f"{name}{n}", each) for n, each in enumerate(those))
    ]
    assert plan(NOW, hosts, [whole], taken).step_aside == tuple(f"b{n}" for n in range(len(on_b)))


def test_a_gang_may_ask_on_several_machines_and_asks_one_that_is_on_both_alone() -> None:
    gang = job("gang", gpus=1, nodes=2, priority=1)
    a, b = machine("a", 2), machine("b", 2)
    apart = [running(device, device, preemptible=True) for device in ("a0", "a1", "b0", "b1")]
    assert plan(NOW, [a, b], [gang], apart).step_aside == ("a1", "b1")
    both = running("both", "a0", "b0", preemptible=True, started=-1)
    assert plan(NOW, [a, b], [gang], [apart[1], both, running("b1", "b1")]).step_aside == ("both",)


def test_one_that_is_leaving_already_is_waited_for_and_no_other_is_asked() -> None:
    taken = [running("r", "a0", "a1", leaving=True), running("s", "a2", "a3", preemptible=True)]
    made = plan(NOW, [A], [job("urgent", gpus=2, priority=1)], taken)
    assert made.step_aside == ()
    assert made.waits == {"urgent": Wait(1, "r to stop", NOW)}
    more = plan(NOW, [A], [job("urgent", gpus=4, priority=1)], taken)
    assert more.step_aside == ("s",)
    assert waits(more, "urgent").why == "s to save and step aside and for r to stop"


def test_what_is_free_is_taken_before_what_will_be() -> None:
    taken = [running("r", "a0", leaving=True), running("s", "a1", leaving=True), running("t", "a3", ends=1100)]
    assert waits(plan(NOW, [A], [job("j", gpus=2)], taken), "j").why == "r to stop"
    assert waits(plan(NOW, [A], [job("j", gpus=4)], taken), "j").starts == 1100


def test_owners_take_turns_in_asking() -> None:
    waiting = [job(f"ann-{n}", priority=1, since=n) for n in range(2)]
    waiting.append(job("bob-0", owner="bob", priority=1, since=2))
    made = plan(NOW, [A], waiting, [full(A, owner="cy", preemptible=True)])
    assert list(made.waits) == ["ann-0", "bob-0", "ann-1"]


def test_what_is_freed_for_a_job_goes_to_no_other() -> None:
    leaving = [running("r", "a0", "a1", preemptible=True, leaving=True)]
    waiting = [job("urgent", A, gpus=4, priority=1), job("small", A, seconds=1)]
    made = plan(NOW, [A], waiting, leaving)
    assert made.starts == {}
    assert waits(made, "small").why == "devices that are kept for urgent, which comes first"


def test_two_urgent_jobs_do_not_count_on_the_same_devices() -> None:
    taken = [running(f"r{n}", f"a{n}", preemptible=True, started=n) for n in range(4)]
    waiting = [job(f"urgent-{n}", gpus=2, priority=1, since=n) for n in range(3)]
    made = plan(NOW, [A], waiting, taken)
    assert sorted(made.step_aside) == ["r0", "r1", "r2", "r3"]
    assert [wait.starts for wait in made.waits.values()] == [NOW, NOW, None]


def test_what_one_frees_beyond_what_the_first_takes_serves_the_next() -> None:
    taken = [running("r", "a0", "a1", "a2", "a3", preemptible=True), running("s", "b0", "b1", preemptible=True)]
    taken.append(running("t", "b2", "b3"))
    waiting = [job(f"urgent-{n}", gpus=2, priority=1, since=n) for n in range(2)]
    assert plan(NOW, [A, B], waiting, taken).step_aside == ("r",)


def test_one_of_two_who_share_steps_aside_for_a_third_who_shares() -> None:
    taken = [running(id, "a0", share=True, preemptible=True, started=n) for n, id in enumerate("rs")]
    one = machine("a", 1)
    assert plan(NOW, [one], [job("urgent", share=True, priority=1)], taken).step_aside == ("s",)
    assert plan(NOW, [one], [job("urgent", priority=1)], taken).step_aside == ("r", "s")


# What people read


def test_why_names_the_machines_with_the_most_that_is_free_and_counts_the_others() -> None:
    hosts = [machine(f"gpu-{n:02}") for n in range(99)] + [machine("held", 4, held=[0])]
    taken = [Occupant(f"r{n}", "ann", 0, tuple(Device(host.name, k) for k in range(3))) for n, host in enumerate(hosts)]
    made = plan(NOW, hosts, [job("j", *hosts, gpus=2)], [*taken[:98], Occupant("s", "ann", 0, (Device("held", 3),))])
    assert made.starts == {"j": (Device("held", 1), Device("held", 2))}
    made = plan(NOW, hosts, [job("j", *hosts, gpus=3)], [*taken[:99], Occupant("s", "ann", 0, (Device("held", 3),))])
    assert waits(made, "j").why == (
        "3 GPUs on one machine: held has 2 of 4 free and 1 held by other programs, gpu-00 has 1 of 4 free, "
        "gpu-01 has 1 of 4 free and 97 more"
    )


def test_why_tells_machines_apart_that_take_fewer() -> None:
    hosts = [Host("cpu", 1, "CPU slot"), A]
    wanted = dataclasses.replace(job("j", *hosts), needs={"cpu": 1, "a": 4})
    assert waits(plan(NOW, hosts, [wanted], [full(A), Occupant("r", "ann", 0, (Device("cpu", 0),))]), "j").why == (
        "4 GPUs or 1 CPU slot on one machine: a has 0 of 4 free, cpu has 0 of 1 free"
    )


def test_why_counts_the_machines_that_a_gang_lacks() -> None:
    assert waits(plan(NOW, [A], [job("gang", nodes=2)], []), "gang").why == "2 machines that can train it; 1 is there"
    made = plan(NOW, [A, B], [job("gang", gpus=4, nodes=2)], [full(A), full(B)])
    assert waits(made, "gang").why == "2 machines with 4 GPUs each; none has them free"


# Properties


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
        devices = [Device(*device) for device in sorted(wanted)]
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


@settings(max_examples=50)
@given(HOSTS, WAITING, occupied())
def test_every_job_starts_or_waits_in_a_place_of_its_own(
    hosts: list[Host], waiting: list[Waiting], occupants: list[Occupant]
) -> None:
    made = plan(NOW, hosts, waiting, occupants)
    assert sorted([*made.starts, *made.waits]) == sorted(each.id for each in waiting)
    assert [wait.place for wait in made.waits.values()] == list(range(1, len(made.waits) + 1))
    assert all(wait.why and "\n" not in wait.why for wait in made.waits.values())
    assert all(wait.starts is None or wait.starts >= NOW for wait in made.waits.values())


@settings(max_examples=50)
@given(HOSTS, WAITING, occupied())
def test_a_job_gets_all_its_devices_on_machines_of_its_own_and_only_what_is_free_for_it(
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
            assert numbers <= started.usable[worker] & (frozenset(range(host.devices)) - host.held)
        for device in devices:
            assert may_join(started.share, [each for each in taken if device in each.devices])
        taken.append(Occupant(id, started.owner, started.priority, devices, started.share))
        assert started.not_before is None or started.not_before <= NOW


@settings(max_examples=50)
@given(HOSTS, WAITING, occupied(), st.randoms(use_true_random=False))
def test_the_plan_depends_on_nothing_but_what_is_there(
    hosts: list[Host], waiting: list[Waiting], occupants: list[Occupant], order: random.Random
) -> None:
    made = plan(NOW, hosts, waiting, occupants)
    mixed = [order.sample(things, len(things)) for things in (hosts, waiting, occupants)]
    again = plan(NOW, *mixed)  # type: ignore[arg-type]
    assert again == made
    assert list(again.waits) == list(made.waits)


@given(HOSTS, jobs(id="urgent", not_before=None), occupied())
def test_just_those_step_aside_whose_devices_the_job_needs_and_only_if_it_then_fits(
    hosts: list[Host], urgent: Waiting, occupants: list[Occupant]
) -> None:
    made = plan(NOW, hosts, [urgent], occupants)
    leaving = {each.id for each in occupants if each.leaving}
    lower = {each.id for each in occupants if each.preemptible and each.priority < urgent.priority} - leaving
    assert lower.issuperset(made.step_aside)

    def fits_without(gone: set[str]) -> bool:
        return bool(plan(NOW, hosts, [urgent], without(occupants, gone)).starts)

    if made.step_aside:
        assert fits_without(leaving.union(made.step_aside))
        assert not any(fits_without(leaving.union(made.step_aside) - {asked}) for asked in made.step_aside)
    else:
        assert made.starts or fits_without(leaving) or not fits_without(leaving | lower)


@settings(max_examples=50)
@given(HOSTS, WAITING, occupied())
def test_nobody_steps_aside_for_an_equal_nor_twice(
    hosts: list[Host], waiting: list[Waiting], occupants: list[Occupant]
) -> None:
    made = plan(NOW, hosts, waiting, occupants)
    by_id = {each.id: each for each in occupants}
    asked = [by_id[id] for id in made.step_aside]
    highest = max((each.priority for each in waiting), default=0)
    assert len(set(made.step_aside)) == len(asked)
    assert all(each.preemptible and not each.leaving and each.priority < highest for each in asked)


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
        assert not made.step_aside
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
def test_jobs_that_pass_a_large_one_do_not_delay_it(
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
def test_of_two_owners_who_never_cease_to_submit_neither_starves(gpus: tuple[int, int], known: bool) -> None:
    service = Service([A])
    submitted: dict[str, float] = {}
    for turn in range(100):
        for owner, size in zip(("ann", "bob"), gpus, strict=True):
            # Ann sends three for each of Bob's.
            for n in range(3 if owner == "ann" else 1):
                id, seconds = f"{owner}-{turn:03}-{n}", 10.0 + (turn * 7 + n) % 5
                if sum(each.owner == owner for each, _ in service.waiting.values()) < 5:
                    submitted[id] = service.now
                    told = seconds if known else None
                    wanted = job(id, A, gpus=size, owner=owner, since=service.now, seconds=told)
                    service.submit(wanted, seconds)
        service.step()
    for owner in ("ann", "bob"):
        waited = [at - submitted[id] for id, at in service.started.items() if id.startswith(owner)]
        assert len(waited) >= 10
        assert max(waited) < 150
        still = [service.now - submitted[id] for id in service.waiting if id.startswith(owner)]
        assert max(still, default=0) < 150


def test_a_thousand_jobs_that_wait_for_a_hundred_devices_are_planned_in_a_moment() -> None:
    hosts = [machine(f"gpu-{n:02}", 8) for n in range(16)]
    taken = [Occupant(f"r{n}", "ann", 0, (Device(hosts[n // 8].name, n % 8),), ends=1100.0 + n) for n in range(128)]
    waiting = [job(f"j{n}", *hosts, gpus=1 + n % 4, owner=f"o{n % 7}", since=n, seconds=60) for n in range(1000)]
    begun = time.process_time()
    made = plan(NOW, hosts, waiting, taken)
    assert time.process_time() - begun < 0.3
    assert len(made.waits) == 1000
