"""Who may pass a job that cannot start yet, and what those who wait are told."""

import dataclasses

from store.scheduling.planner import Device, Host, Occupant, Wait, plan
from tests.store.plan.making import NOW, A, B, full, job, machine, on, running, waits


def test_a_small_job_passes_a_large_one_only_if_it_ends_before_the_large_one_can_start() -> None:
    large = job("large", A, gpus=4, priority=1)
    small = [job("short", A, seconds=100), job("long", A, seconds=101), job("unknown", A)]
    made = plan(NOW, [A], [large, *small], [running("r", "a0", ends=1100)])
    assert made.starts == {"short": on("a1")}
    assert waits(made, "large").estimated_start == 1100
    assert waits(made, "long").reason == "Waits for devices that are kept for large, which comes first."
    assert "unknown" in made.waits


def test_nothing_passes_on_what_is_kept_until_nobody_knows_when() -> None:
    large = job("large", A, gpus=4, priority=1)
    made = plan(NOW, [A], [large, job("short", A, seconds=1)], [running("r", "a0")])
    assert made.starts == {}
    assert waits(made, "large").estimated_start is None


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
    assert [wait.estimated_start for wait in made.waits.values()] == [1100, 1150, 1200]


def test_an_unknown_reservation_behind_a_known_one_forbids_nothing_before_it() -> None:
    waiting = [job("large", A, gpus=4, priority=2), job("behind", A, gpus=4, priority=1), job("short", A, seconds=100)]
    made = plan(NOW, [A], [*waiting, job("unknown", A)], [running("r", "a0", ends=1100)])
    assert made.starts == {"short": on("a1")}
    assert waits(made, "unknown").reason == "Waits for devices that are kept for large, which comes first."


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
    assert waits(made, "gang").reason == "Waits for devices that are kept for soon, which comes first."


def test_one_that_runs_longer_than_expected_may_end_at_any_time() -> None:
    made = plan(NOW, [A], [job("large", gpus=4), job("small", seconds=1)], [running("r", "a0", ends=900)])
    assert waits(made, "large").estimated_start == NOW
    assert made.starts == {}
    assert waits(plan(NOW, [A], [job("j")], [full(A, ends=900)]), "j").estimated_start == NOW


def test_after_a_failure_a_job_holds_nobody_up_until_it_is_tried_again() -> None:
    failed = job("failed", gpus=4, priority=1, not_before=1011.5)
    made = plan(NOW, [A], [failed, job("j")], [running("r", "a0", ends=1500)])
    assert made.starts == {"j": on("a1")}
    assert made.waits == {"failed": Wait(1, "Starts again in 12 s, after a failure.", None)}
    assert plan(1011.5, [A], [failed], []).starts


def test_a_job_that_fits_nowhere_holds_nobody_up() -> None:
    waiting = [job("nowhere", machine("c"), priority=1), job("held", gpus=4, priority=1), job("j")]
    made = plan(NOW, [machine("a", 4, busy=[3])], waiting, [])
    assert list(made.starts) == ["j"]
    assert waits(made, "nowhere").reason == "Waits for a machine that can train it; none is there."
    assert (
        waits(made, "held").reason
        == "Waits for 4 GPUs on one machine: a has 3 of 4 free and 1 busy with other programs."
    )


def test_why_names_the_machines_with_the_most_that_is_free_and_counts_the_others() -> None:
    hosts = [machine(f"gpu-{n:02}") for n in range(99)] + [machine("held", 4, busy=[0])]
    taken = [Occupant(f"r{n}", "ann", 0, tuple(Device(host.name, k) for k in range(3))) for n, host in enumerate(hosts)]
    made = plan(NOW, hosts, [job("j", *hosts, gpus=2)], [*taken[:98], Occupant("s", "ann", 0, (Device("held", 3),))])
    assert made.starts == {"j": (Device("held", 1), Device("held", 2))}
    made = plan(NOW, hosts, [job("j", *hosts, gpus=3)], [*taken[:99], Occupant("s", "ann", 0, (Device("held", 3),))])
    assert waits(made, "j").reason == (
        "Waits for 3 GPUs on one machine: held has 2 of 4 free and 1 busy with other programs, gpu-00 has 1 of 4 free, "
        "gpu-01 has 1 of 4 free and 97 more."
    )


def test_why_tells_machines_apart_that_take_fewer() -> None:
    hosts = [Host("cpu", 1, "CPU slot"), A]
    wanted = dataclasses.replace(job("j", *hosts), needs={"cpu": 1, "a": 4})
    assert waits(plan(NOW, hosts, [wanted], [full(A), Occupant("r", "ann", 0, (Device("cpu", 0),))]), "j").reason == (
        "Waits for 4 GPUs or 1 CPU slot on one machine: a has 0 of 4 free, cpu has 0 of 1 free."
    )


def test_why_counts_the_machines_that_a_gang_lacks() -> None:
    made = plan(NOW, [A], [job("gang", nodes=2)], [])
    assert waits(made, "gang").reason == "Waits for 2 machines that can train it; 1 is there."
    made = plan(NOW, [A, B], [job("gang", gpus=4, nodes=2)], [full(A), full(B)])
    assert waits(made, "gang").reason == "Waits for 2 machines with 4 GPUs each; none has them free."
