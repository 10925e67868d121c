"""Which jobs are preempted."""

import dataclasses

import pytest

from store.scheduling.planner import plan
from store.scheduling.situation import Wait
from tests.store.scheduling.factories import NOW, A, B, full, job, machine, running, waits


def test_preemptible_job_of_lower_priority_is_preempted() -> None:
    made = plan(NOW, [A], [job("urgent", priority=1)], [full(A, preemptible=True)])
    assert made.preempt == ("all-of-a",)
    assert made.waits == {"urgent": Wait(1, "The job waits for all-of-a to save and make room.", NOW)}
    assert plan(NOW, [A], [job("urgent", priority=1)], [full(A)]).preempt == ()
    assert plan(NOW, [A], [job("equal")], [full(A, preemptible=True)]).preempt == ()


def test_useless_preemption_is_not_requested() -> None:
    taken = [running("r", "a0", preemptible=True), running("s", "a1")]
    assert plan(NOW, [A], [job("urgent", gpus=4, priority=1)], taken).preempt == ()
    gang = job("gang", gpus=4, nodes=2, priority=1)
    assert plan(NOW, [A, B], [gang], [full(A, preemptible=True), full(B)]).preempt == ()


def test_lowest_and_then_latest_job_is_preempted() -> None:
    taken = [
        running("high", "a0", priority=2, preemptible=True, started=9),
        running("old", "a1", priority=1, preemptible=True, started=1),
        running("new", "a2", priority=1, preemptible=True, started=2),
        running("low", "a3", priority=0, preemptible=True, started=0),
    ]
    requested = [plan(NOW, [A], [job("urgent", gpus=gpus, priority=3)], taken).preempt for gpus in (1, 2, 3)]
    assert requested == [("low",), ("low", "new"), ("low", "new", "old")]


def test_fewest_needed_jobs_are_preempted() -> None:
    taken = [running("a-1", "a0", "a1", preemptible=True), running("a-2", "a2", "a3", preemptible=True)]
    taken += [running("b-1", "b0", preemptible=True), running("b-2", "b1", "b2", "b3", preemptible=True, started=1)]
    assert plan(NOW, [A, B], [job("urgent", gpus=3, priority=1)], taken).preempt == ("b-2",)


@pytest.mark.parametrize(
    ("on_a", "on_b"),
    [([(1, 0)], [(0, 0), (0, 0)]), ([(0, 0), (0, 0)], [(0, 0)]), ([(0, 1)], [(0, 2)])],
)
def test_several_low_jobs_go_before_a_high_one(on_a: list[tuple[int, float]], on_b: list[tuple[int, float]]) -> None:
    hosts = [machine("a", len(on_a)), machine("b", len(on_b))]
    whole = dataclasses.replace(job("urgent", *hosts, priority=2), needs={"a": len(on_a), "b": len(on_b)})
    taken = [
        running(device, device, priority=priority, preemptible=True, started=started)
        for name, those in (("a", on_a), ("b", on_b))
        for device, (priority, started) in ((f"{name}{n}", each) for n, each in enumerate(those))
    ]
    assert plan(NOW, hosts, [whole], taken).preempt == tuple(f"b{n}" for n in range(len(on_b)))


def test_gang_prefers_one_job_on_both_machines() -> None:
    gang = job("gang", gpus=1, nodes=2, priority=1)
    a, b = machine("a", 2), machine("b", 2)
    apart = [running(device, device, preemptible=True) for device in ("a0", "a1", "b0", "b1")]
    assert plan(NOW, [a, b], [gang], apart).preempt == ("a1", "b1")
    both = running("both", "a0", "b0", preemptible=True, started=-1)
    assert plan(NOW, [a, b], [gang], [apart[1], both, running("b1", "b1")]).preempt == ("both",)


def test_leaving_job_is_waited_for() -> None:
    taken = [running("r", "a0", "a1", leaving=True), running("s", "a2", "a3", preemptible=True)]
    made = plan(NOW, [A], [job("urgent", gpus=2, priority=1)], taken)
    assert made.preempt == ()
    assert made.waits == {"urgent": Wait(1, "The job waits for r to stop.", NOW)}
    more = plan(NOW, [A], [job("urgent", gpus=4, priority=1)], taken)
    assert more.preempt == ("s",)
    assert waits(more, "urgent").reason == "The job waits for s to save and make room and for r to stop."


def test_free_devices_are_taken_before_freed_ones() -> None:
    taken = [running("r", "a0", leaving=True), running("s", "a1", leaving=True), running("t", "a3", ends=1100)]
    assert waits(plan(NOW, [A], [job("j", gpus=2)], taken), "j").reason == "The job waits for r to stop."
    assert waits(plan(NOW, [A], [job("j", gpus=4)], taken), "j").estimated_start == 1100


def test_owners_take_turns_in_asking() -> None:
    waiting = [job(f"ann-{n}", priority=1, since=n) for n in range(2)]
    waiting.append(job("bob-0", owner="bob", priority=1, since=2))
    made = plan(NOW, [A], waiting, [full(A, owner="cy", preemptible=True)])
    assert list(made.waits) == ["ann-0", "bob-0", "ann-1"]


def test_freed_devices_go_to_their_job() -> None:
    leaving = [running("r", "a0", "a1", preemptible=True, leaving=True)]
    waiting = [job("urgent", A, gpus=4, priority=1), job("small", A, seconds=1)]
    made = plan(NOW, [A], waiting, leaving)
    assert made.starts == {}
    assert waits(made, "small").reason == "The job waits for devices that are kept for urgent, which comes first."


def test_urgent_jobs_do_not_share_freed_devices() -> None:
    taken = [running(f"r{n}", f"a{n}", preemptible=True, started=n) for n in range(4)]
    waiting = [job(f"urgent-{n}", gpus=2, priority=1, since=n) for n in range(3)]
    made = plan(NOW, [A], waiting, taken)
    assert sorted(made.preempt) == ["r0", "r1", "r2", "r3"]
    assert [wait.estimated_start for wait in made.waits.values()] == [NOW, NOW, None]


def test_surplus_freed_devices_serve_the_next_job() -> None:
    taken = [running("r", "a0", "a1", "a2", "a3", preemptible=True), running("s", "b0", "b1", preemptible=True)]
    taken.append(running("t", "b2", "b3"))
    waiting = [job(f"urgent-{n}", gpus=2, priority=1, since=n) for n in range(2)]
    assert plan(NOW, [A, B], waiting, taken).preempt == ("r",)


def test_sharer_is_preempted_for_a_third_sharer() -> None:
    taken = [running(id, "a0", share=True, preemptible=True, started=n) for n, id in enumerate("rs")]
    one = machine("a", 1)
    assert plan(NOW, [one], [job("urgent", share=True, priority=1)], taken).preempt == ("s",)
    assert plan(NOW, [one], [job("urgent", priority=1)], taken).preempt == ("r", "s")
