"""Who is asked to make room."""

import dataclasses

import pytest

from store.scheduling.planner import Wait, plan
from tests.store.plan.making import NOW, A, B, full, job, machine, running, waits


def test_a_running_job_of_a_lower_priority_is_asked_to_step_aside_if_it_allows_it() -> None:
    made = plan(NOW, [A], [job("urgent", priority=1)], [full(A, preemptible=True)])
    assert made.preempt == ("all-of-a",)
    assert made.waits == {"urgent": Wait(1, "Waits for all-of-a to save and make room.", NOW)}
    assert plan(NOW, [A], [job("urgent", priority=1)], [full(A)]).preempt == ()
    assert plan(NOW, [A], [job("equal")], [full(A, preemptible=True)]).preempt == ()


def test_nobody_is_asked_where_the_job_would_still_not_fit() -> None:
    taken = [running("r", "a0", preemptible=True), running("s", "a1")]
    assert plan(NOW, [A], [job("urgent", gpus=4, priority=1)], taken).preempt == ()
    gang = job("gang", gpus=4, nodes=2, priority=1)
    assert plan(NOW, [A, B], [gang], [full(A, preemptible=True), full(B)]).preempt == ()


def test_the_lowest_priority_is_asked_then_the_one_started_last() -> None:
    taken = [
        running("high", "a0", priority=2, preemptible=True, started=9),
        running("old", "a1", priority=1, preemptible=True, started=1),
        running("new", "a2", priority=1, preemptible=True, started=2),
        running("low", "a3", priority=0, preemptible=True, started=0),
    ]
    asked = [plan(NOW, [A], [job("urgent", gpus=gpus, priority=3)], taken).preempt for gpus in (1, 2, 3)]
    assert asked == [("low",), ("low", "new"), ("low", "new", "old")]


def test_no_more_are_asked_than_are_needed_and_on_the_machine_where_it_disturbs_least() -> None:
    taken = [running("a-1", "a0", "a1", preemptible=True), running("a-2", "a2", "a3", preemptible=True)]
    taken += [running("b-1", "b0", preemptible=True), running("b-2", "b1", "b2", "b3", preemptible=True, started=1)]
    assert plan(NOW, [A, B], [job("urgent", gpus=3, priority=1)], taken).preempt == ("b-2",)


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
    assert plan(NOW, hosts, [whole], taken).preempt == tuple(f"b{n}" for n in range(len(on_b)))


def test_a_gang_may_ask_on_several_machines_and_asks_one_that_is_on_both_alone() -> None:
    gang = job("gang", gpus=1, nodes=2, priority=1)
    a, b = machine("a", 2), machine("b", 2)
    apart = [running(device, device, preemptible=True) for device in ("a0", "a1", "b0", "b1")]
    assert plan(NOW, [a, b], [gang], apart).preempt == ("a1", "b1")
    both = running("both", "a0", "b0", preemptible=True, started=-1)
    assert plan(NOW, [a, b], [gang], [apart[1], both, running("b1", "b1")]).preempt == ("both",)


def test_one_that_is_leaving_already_is_waited_for_and_no_other_is_asked() -> None:
    taken = [running("r", "a0", "a1", leaving=True), running("s", "a2", "a3", preemptible=True)]
    made = plan(NOW, [A], [job("urgent", gpus=2, priority=1)], taken)
    assert made.preempt == ()
    assert made.waits == {"urgent": Wait(1, "Waits for r to stop.", NOW)}
    more = plan(NOW, [A], [job("urgent", gpus=4, priority=1)], taken)
    assert more.preempt == ("s",)
    assert waits(more, "urgent").reason == "Waits for s to save and make room and for r to stop."


def test_what_is_free_is_taken_before_what_will_be() -> None:
    taken = [running("r", "a0", leaving=True), running("s", "a1", leaving=True), running("t", "a3", ends=1100)]
    assert waits(plan(NOW, [A], [job("j", gpus=2)], taken), "j").reason == "Waits for r to stop."
    assert waits(plan(NOW, [A], [job("j", gpus=4)], taken), "j").estimated_start == 1100


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
    assert waits(made, "small").reason == "Waits for devices that are kept for urgent, which comes first."


def test_two_urgent_jobs_do_not_count_on_the_same_devices() -> None:
    taken = [running(f"r{n}", f"a{n}", preemptible=True, started=n) for n in range(4)]
    waiting = [job(f"urgent-{n}", gpus=2, priority=1, since=n) for n in range(3)]
    made = plan(NOW, [A], waiting, taken)
    assert sorted(made.preempt) == ["r0", "r1", "r2", "r3"]
    assert [wait.estimated_start for wait in made.waits.values()] == [NOW, NOW, None]


def test_what_one_frees_beyond_what_the_first_takes_serves_the_next() -> None:
    taken = [running("r", "a0", "a1", "a2", "a3", preemptible=True), running("s", "b0", "b1", preemptible=True)]
    taken.append(running("t", "b2", "b3"))
    waiting = [job(f"urgent-{n}", gpus=2, priority=1, since=n) for n in range(2)]
    assert plan(NOW, [A, B], waiting, taken).preempt == ("r",)


def test_one_of_two_who_share_steps_aside_for_a_third_who_shares() -> None:
    taken = [running(id, "a0", share=True, preemptible=True, started=n) for n, id in enumerate("rs")]
    one = machine("a", 1)
    assert plan(NOW, [one], [job("urgent", share=True, priority=1)], taken).preempt == ("s",)
    assert plan(NOW, [one], [job("urgent", priority=1)], taken).preempt == ("r", "s")
