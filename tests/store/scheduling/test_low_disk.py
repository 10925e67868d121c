"""No job starts on a machine whose disk has too little room; it says so, and starts elsewhere if it can."""

from dataclasses import replace

from store.scheduling.planner import plan
from tests.store.scheduling.factories import NOW, A, B, full, job, running, waits

LOW_A, LOW_B = (replace(host, reserve_bytes=2 << 30) for host in (A, B))


def test_job_waits_for_disk_space_with_a_reason() -> None:
    wait = waits(plan(NOW, [LOW_A], [job("1", A)], []), "1")
    assert (wait.position, wait.estimated_start) == (1, None)
    assert wait.reason == "The job waits for disk space: a has less than 2.1 GB free."
    both = waits(plan(NOW, [LOW_A, LOW_B], [job("1")], []), "1").reason
    assert both == "The job waits for disk space: a, b have less than 2.1 GB free."


def test_job_starts_where_the_disk_has_room() -> None:
    made = plan(NOW, [LOW_A, B], [job("1")], [])
    assert {device.worker for device in made.starts["1"]} == {"b"}
    made = plan(NOW, [LOW_A, B], [job("1")], [full(B)])
    assert waits(made, "1").reason.startswith("The job waits for 1 GPU on one machine: b has 0 of 4 free")


def test_second_machine_without_room_holds_up_a_job_of_two() -> None:
    assert "disk space: a has less" in waits(plan(NOW, [LOW_A, B], [job("1", nodes=2)], []), "1").reason


def test_too_large_job_waits_for_no_disk() -> None:
    assert "none is there" in waits(plan(NOW, [LOW_A], [job("1", A, gpus=5)], []), "1").reason


def test_running_jobs_are_left_alone_on_a_low_disk() -> None:
    low = running("2", "a0", "a1", "a2", "a3", preemptible=True)
    made = plan(NOW, [LOW_A], [job("1", A, priority=9)], [low])
    assert made.preempt == ()
    assert "disk space" in waits(made, "1").reason
