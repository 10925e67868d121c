"""Whose turn it is, where it starts, and who shares."""

from store.scheduling.planner import plan
from store.scheduling.situation import Wait, Waiting
from tests.store.scheduling.factories import NOW, A, B, full, job, machine, on, running, waits

# The order


def test_higher_priority_goes_first_then_the_older() -> None:
    waiting = [job("young", since=3), job("old", since=1), job("urgent", since=9, priority=1)]
    made = plan(NOW, [A], waiting, [full(A)])
    assert list(made.waits) == ["urgent", "old", "young"]
    assert [wait.position for wait in made.waits.values()] == [1, 2, 3]


def test_owner_with_fewest_devices_goes_first() -> None:
    waiting = [job("of-ann", since=1), job("of-bob", owner="bob", since=2)]
    made = plan(NOW, [A], waiting, [running("r", "a0", "a1", "a2", owner="ann")])
    assert made.starts == {"of-bob": on("a3")}


def test_owners_take_turns_in_the_queue() -> None:
    waiting = [job(f"ann-{n}", since=n) for n in range(6)]
    waiting += [job(f"bob-{n}", owner="bob", since=10 + n) for n in range(6)]
    made = plan(NOW, [A], waiting, [])
    assert list(made.starts) == ["ann-0", "bob-0", "ann-1", "bob-1"]
    assert list(made.waits)[:4] == ["ann-2", "bob-2", "ann-3", "bob-3"]


def test_high_priority_starts_count_for_the_owner() -> None:
    waiting = [job("urgent", priority=1), job("of-ann", since=1), job("of-bob", owner="bob", since=2)]
    assert list(plan(NOW, [A], waiting, []).starts) == ["urgent", "of-bob", "of-ann"]


# Starting


def test_owner_quota_bounds_running_jobs() -> None:
    waiting = [job("second", since=1), job("third", since=2), job("of-bob", owner="bob", since=3)]
    made = plan(NOW, [A], waiting, [running("first", "a0")], {"ann": 2})
    assert set(made.starts) == {"second", "of-bob"}
    assert waits(made, "third") == Wait(1, "The owner already runs 2 jobs, the most that may run at once.", None)


def test_job_over_quota_blocks_nobody_else() -> None:
    waiting = [job("urgent", gpus=4, priority=9), job("of-bob", gpus=4, owner="bob", since=3)]
    spared = running("first", "a0", preemptible=True)
    made = plan(NOW, [A, B], waiting, [spared], {"ann": 1})
    assert (set(made.starts), made.preempt) == ({"of-bob"}, ())


def test_job_takes_the_tightest_machine_first() -> None:
    made = plan(NOW, [A, B], [job("j", gpus=2)], [running("r", "b0", "b2")])
    assert made.starts == {"j": on("b1", "b3")}
    assert plan(NOW, [B, A], [job("j")], []).starts == {"j": on("a0")}


def test_machine_may_offer_suitable_devices_only() -> None:
    wanted = Waiting("j", "ann", 0, 0, 1, {"a": 3, "b": 1}, {"a": frozenset({0, 2}), "b": frozenset({2, 3})})
    assert plan(NOW, [A, B], [wanted], []).starts == {"j": on("b2")}


def test_gang_starts_on_distinct_machines_or_not() -> None:
    gang = job("gang", gpus=3, nodes=2)
    assert plan(NOW, [A, B], [gang], []).starts == {"gang": on("a0", "a1", "a2", "b0", "b1", "b2")}
    made = plan(NOW, [A, B], [gang], [running("r", "b0", "b1")])
    assert made.starts == {}
    assert waits(made, "gang").reason == "The job waits for 2 machines with 3 GPUs each; 1 has them free."


def test_busy_and_lost_devices_are_never_given() -> None:
    hosts = [machine("a", 2, busy=[0])]
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


def test_sharing_job_joins_a_shared_device_first() -> None:
    made = plan(NOW, [A, B], [job("j", share=True), job("k", gpus=2, share=True)], [running("r", "b3", share=True)])
    assert made.starts["j"] == on("b3")
    mixed = plan(NOW, [A], [job("k", gpus=2, share=True)], [running("r", "a3", share=True)])
    assert mixed.starts == {"k": on("a0", "a3")}


def test_exclusive_job_waits_for_both_sharers() -> None:
    sharing = [running("r", "a0", share=True, ends=1010), running("s", "a0", share=True, ends=1020)]
    made = plan(NOW, [machine("a", 1)], [job("j"), job("k", share=True, priority=1)], sharing)
    assert waits(made, "k").estimated_start == 1010
    # k may run for ever.
    assert waits(made, "j").estimated_start is None
    assert waits(plan(NOW, [machine("a", 1)], [job("j")], sharing), "j").estimated_start == 1020


def test_first_free_half_of_a_device_counts() -> None:
    taken = [running("r", "a0", share=True), running("s", "a1", ends=1100)]
    made = plan(NOW, [machine("a", 2)], [job("j", A, gpus=2, share=True)], taken)
    assert waits(made, "j").estimated_start == 1100


def test_third_sharer_is_estimated_later() -> None:
    waiting = [job(id, share=True, seconds=50) for id in "jkl"]
    made = plan(NOW, [machine("a", 1)], waiting, [running("r", "a0", ends=1100)])
    assert [wait.estimated_start for wait in made.waits.values()] == [1100, 1100, 1150]
