"""Whose turn it is, where it starts, and who shares."""

from store.scheduling.planner import Wait, Waiting, plan
from tests.store.plan.making import NOW, A, B, full, job, machine, on, running, waits

# The order


def test_a_higher_priority_goes_first_then_the_older() -> None:
    waiting = [job("young", since=3), job("old", since=1), job("urgent", since=9, priority=1)]
    made = plan(NOW, [A], waiting, [full(A)])
    assert list(made.waits) == ["urgent", "old", "young"]
    assert [wait.position for wait in made.waits.values()] == [1, 2, 3]


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
    assert waits(made, "third") == Wait(1, "Its owner already runs 2 jobs, the most that may run at once.", None)


def test_a_job_that_its_owners_limit_keeps_back_takes_nothing_from_others() -> None:
    waiting = [job("urgent", gpus=4, priority=9), job("of-bob", gpus=4, owner="bob", since=3)]
    spared = running("first", "a0", preemptible=True)
    made = plan(NOW, [A, B], waiting, [spared], {"ann": 1})
    assert (set(made.starts), made.preempt) == ({"of-bob"}, ())


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
    assert waits(made, "gang").reason == "Waits for 2 machines with 3 GPUs each; 1 has them free."


def test_what_other_programs_hold_and_what_is_on_a_lost_machine_is_never_given() -> None:
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


def test_a_sharing_job_joins_another_before_it_takes_an_empty_device() -> None:
    made = plan(NOW, [A, B], [job("j", share=True), job("k", gpus=2, share=True)], [running("r", "b3", share=True)])
    assert made.starts["j"] == on("b3")
    mixed = plan(NOW, [A], [job("k", gpus=2, share=True)], [running("r", "a3", share=True)])
    assert mixed.starts == {"k": on("a0", "a3")}


def test_a_job_that_does_not_share_waits_for_both_who_do() -> None:
    sharing = [running("r", "a0", share=True, ends=1010), running("s", "a0", share=True, ends=1020)]
    made = plan(NOW, [machine("a", 1)], [job("j"), job("k", share=True, priority=1)], sharing)
    assert waits(made, "k").estimated_start == 1010
    # k may run for ever.
    assert waits(made, "j").estimated_start is None
    assert waits(plan(NOW, [machine("a", 1)], [job("j")], sharing), "j").estimated_start == 1020


def test_of_two_halves_of_a_device_the_one_that_is_free_first_counts() -> None:
    taken = [running("r", "a0", share=True), running("s", "a1", ends=1100)]
    made = plan(NOW, [machine("a", 2)], [job("j", A, gpus=2, share=True)], taken)
    assert waits(made, "j").estimated_start == 1100


def test_two_who_share_are_told_the_same_time_and_the_third_a_later_one() -> None:
    waiting = [job(id, share=True, seconds=50) for id in "jkl"]
    made = plan(NOW, [machine("a", 1)], waiting, [running("r", "a0", ends=1100)])
    assert [wait.estimated_start for wait in made.waits.values()] == [1100, 1100, 1150]
