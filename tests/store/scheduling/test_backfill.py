"""Who may pass a job that cannot start yet, and the reasons of those who wait."""

import dataclasses

from store.scheduling.planner import plan
from store.scheduling.situation import DeviceRef, Host, Occupant, Wait
from tests.store.scheduling.factories import NOW, A, B, full, job, machine, on, running, waits


def test_small_job_passes_only_without_delaying() -> None:
    large = job("large", A, gpus=4, priority=1)
    small = [job("short", A, seconds=100), job("long", A, seconds=101), job("unknown", A)]
    made = plan(NOW, [A], [large, *small], [running("r", "a0", ends=1100)])
    assert made.starts == {"short": on("a1")}
    assert waits(made, "large").estimated_start == 1100
    assert waits(made, "long").reason == "The job waits for devices that are kept for large, which comes first."
    assert "unknown" in made.waits


def test_reserved_devices_are_not_passed_while_unknown() -> None:
    large = job("large", A, gpus=4, priority=1)
    made = plan(NOW, [A], [large, job("short", A, seconds=1)], [running("r", "a0")])
    assert made.starts == {}
    assert waits(made, "large").estimated_start is None


def test_small_job_avoids_reserved_devices() -> None:
    large = job("large", A, gpus=4, priority=1)
    taken = [running("r", "a0", ends=1100), running("s", "b0")]
    made = plan(NOW, [A, B], [large, job("short", seconds=10), job("unknown")], taken)
    assert made.starts == {"short": on("b1"), "unknown": on("b2")}
    made = plan(NOW, [A, B], [job("gang", nodes=2, priority=1), job("short", A, seconds=10)], [full(B, ends=1100)])
    assert made.starts == {"short": on("a1")}


def test_later_job_is_estimated_behind_earlier_ones() -> None:
    waiting = [job("j", A, gpus=4, seconds=50, since=1), job("k", A, gpus=4, seconds=50, since=2), job("l", A, since=3)]
    made = plan(NOW, [A], waiting, [full(A, ends=1100)])
    assert [wait.estimated_start for wait in made.waits.values()] == [1100, 1150, 1200]


def test_unknown_reservation_blocks_nothing_earlier() -> None:
    waiting = [job("large", A, gpus=4, priority=2), job("behind", A, gpus=4, priority=1), job("short", A, seconds=100)]
    made = plan(NOW, [A], [*waiting, job("unknown", A)], [running("r", "a0", ends=1100)])
    assert made.starts == {"short": on("a1")}
    assert waits(made, "unknown").reason == "The job waits for devices that are kept for large, which comes first."


def test_jobs_with_unknown_starts_reserve_separately() -> None:
    waiting = [job("j", gpus=4, priority=2), job("k", gpus=4, priority=1), job("small")]
    made = plan(NOW, [A, B], waiting, [running("r", "a0"), running("s", "b0")])
    assert made.starts == {}


def test_unknown_start_reserves_the_nearest_machine() -> None:
    made = plan(NOW, [A, B], [job("large", gpus=4, priority=1), job("small")], [full(A), running("r", "b0")])
    assert made.starts == {}


def test_why_names_the_one_that_cannot_be_passed() -> None:
    late, soon = job("late", A, gpus=4, priority=1), job("soon", B, gpus=4, priority=1)
    taken = [running("r", "a0", ends=1100), running("s", "b0", ends=1010)]
    made = plan(NOW, [A, B], [late, soon, job("gang", nodes=2, seconds=50)], taken)
    assert waits(made, "gang").reason == "The job waits for devices that are kept for soon, which comes first."


def test_overdue_job_may_end_at_any_time() -> None:
    made = plan(NOW, [A], [job("large", gpus=4), job("small", seconds=1)], [running("r", "a0", ends=900)])
    assert waits(made, "large").estimated_start == NOW
    assert made.starts == {}
    assert waits(plan(NOW, [A], [job("j")], [full(A, ends=900)]), "j").estimated_start == NOW


def test_job_in_backoff_delays_nobody() -> None:
    failed = job("failed", gpus=4, priority=1, not_before=1011.5)
    made = plan(NOW, [A], [failed, job("j")], [running("r", "a0", ends=1500)])
    assert made.starts == {"j": on("a1")}
    assert made.waits == {"failed": Wait(1, "Starts again in 12 s, after a failure.", None)}
    assert plan(1011.5, [A], [failed], []).starts


def test_job_that_fits_nowhere_holds_nobody_up() -> None:
    waiting = [job("nowhere", machine("c"), priority=1), job("held", gpus=4, priority=1), job("j")]
    made = plan(NOW, [machine("a", 4, busy=[3])], waiting, [])
    assert list(made.starts) == ["j"]
    assert waits(made, "nowhere").reason == "The job waits for a machine that can train it; none is there."
    assert (
        waits(made, "held").reason
        == "The job waits for 4 GPUs on one machine: a has 3 of 4 free and 1 busy or unavailable."
    )


def test_reason_names_the_freest_machines() -> None:
    hosts = [machine(f"gpu-{n:02}") for n in range(99)] + [machine("held", 4, busy=[0])]
    taken = [
        Occupant(f"r{n}", "ann", 0, tuple(DeviceRef(host.name, k) for k in range(3))) for n, host in enumerate(hosts)
    ]
    made = plan(NOW, hosts, [job("j", *hosts, gpus=2)], [*taken[:98], Occupant("s", "ann", 0, (DeviceRef("held", 3),))])
    assert made.starts == {"j": (DeviceRef("held", 1), DeviceRef("held", 2))}
    made = plan(NOW, hosts, [job("j", *hosts, gpus=3)], [*taken[:99], Occupant("s", "ann", 0, (DeviceRef("held", 3),))])
    assert waits(made, "j").reason == (
        "The job waits for 3 GPUs on one machine: held has 2 of 4 free and 1 busy or unavailable, "
        "gpu-00 has 1 of 4 free, gpu-01 has 1 of 4 free and 97 more."
    )


def test_why_tells_machines_apart_that_take_fewer() -> None:
    hosts = [Host("cpu", 1, "CPU slot"), A]
    wanted = dataclasses.replace(job("j", *hosts), needs={"cpu": 1, "a": 4})
    assert waits(
        plan(NOW, hosts, [wanted], [full(A), Occupant("r", "ann", 0, (DeviceRef("cpu", 0),))]), "j"
    ).reason == ("The job waits for 4 GPUs or 1 CPU slot on one machine: a has 0 of 4 free, cpu has 0 of 1 free.")


def test_why_counts_the_machines_that_a_gang_lacks() -> None:
    made = plan(NOW, [A], [job("gang", nodes=2)], [])
    assert waits(made, "gang").reason == "The job waits for 2 machines that can train it; 1 is there."
    made = plan(NOW, [A, B], [job("gang", gpus=4, nodes=2)], [full(A), full(B)])
    assert waits(made, "gang").reason == "The job waits for 2 machines with 4 GPUs each; none has them free."
