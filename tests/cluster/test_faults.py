"""Parts of a cluster, and of the service beside it, that die or do not answer. No step is lost or trained twice."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.processes import is_alive, parent_of
from tests.cluster.runs import LONG, check_gone, check_whole, slurm_id, submit
from tests.support.processes import read_proc
from tests.support.service import Service
from tests.support.slurm import LONGEST_STOP, SlurmCluster
from tests.support.waiting import until
from worker.launchers.slurm import EXIT

pytestmark = pytest.mark.exhaustive


def pool(live: Service) -> list[int]:
    """The processes of the worker's pool, one of which follows the job."""
    its = [pid for pid in live.everything() if parent_of(pid) == live.worker.pid]
    return [pid for pid in its if b"worker.publishing" not in read_proc(pid, "cmdline")]


def test_controller_that_is_away_fails_nothing(live: Service, cluster: SlurmCluster) -> None:
    cluster.kill("slurmctld")
    job_id = submit(live, "steps=3")
    until(lambda: (queue := live.job(job_id)["queue"]) and queue["code"] == "cluster_unreachable", seconds=60)
    cluster.start_controller()
    job = live.wait(job_id, seconds=90)
    assert (job["status"], job["attempt"], job["retries"]) == ("succeeded", 1, 0)
    check_whole(live, job_id, steps=3)


def test_job_may_end_while_the_controller_is_away(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, LONG)
    live.wait_for_step(job_id, 3)
    cluster.kill("slurmctld")
    until((live.run_dir(job_id).path / EXIT).exists, seconds=60)
    assert live.job(job_id)["status"] == "running"
    cluster.start_controller()
    job = live.wait(job_id, seconds=90)
    assert (job["status"], job["attempt"]) == ("succeeded", 1)
    check_whole(live, job_id)


def test_killed_controller_starts_no_attempt_twice(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, LONG)
    slurm_id(cluster, job_id)
    cluster.kill("slurmctld")
    cluster.start_controller()
    assert live.wait(job_id, seconds=120)["status"] == "succeeded"
    check_whole(live, job_id)
    check_gone(live, cluster, job_id)


def test_killed_slurmd_leaves_the_job_running(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, LONG)
    live.wait_for_step(job_id, 3)
    for node in ("n1", "n2"):
        cluster.kill(f"slurmd-{node}")
    for node in ("n1", "n2"):
        cluster.start_node(node)
    assert live.wait(job_id, seconds=120)["status"] == "succeeded"
    check_whole(live, job_id)


def test_killed_trainer_is_retried(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, "steps=12 sleep=0.1 every=4 kill=9 once")
    job = live.wait(job_id, seconds=90)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    (retry,) = live.reported(job_id, "retry")
    assert retry["code"] == "trainer_killed"
    check_whole(live, job_id, steps=12)


def test_killed_worker_is_followed_by_another_attempt(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, LONG)
    live.wait_for_step(job_id, 3)
    number = slurm_id(cluster, job_id)
    live.kill_worker("login")
    live.start_worker("login")
    until(lambda: live.job(job_id)["attempt"] == 2, seconds=60)
    assert number not in cluster.jobs("RUNNING", "COMPLETING")
    assert live.wait(job_id, seconds=90)["status"] == "succeeded"
    check_whole(live, job_id)
    check_gone(live, cluster, job_id)


def test_follower_that_is_killed_leaves_no_job_in_slurm(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, LONG)
    live.wait_for_step(job_id, 3)
    followers = pool(live)
    for pid in followers:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(is_alive, followers)))
    assert live.wait(job_id, seconds=90)["status"] == "succeeded"
    check_whole(live, job_id)
    check_gone(live, cluster, job_id)


def test_killed_api_is_missed_by_no_job(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, LONG)
    live.wait_for_step(job_id, 3)
    live.api.kill()
    live.api.wait()
    until((live.run_dir(job_id).path / EXIT).exists, seconds=60)
    live.start_api()
    job = live.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 1)
    check_whole(live, job_id)
    check_gone(live, cluster, job_id)


@pytest.mark.parametrize(("seconds", "went_on"), [(2, True), (2 * LONGEST_STOP, False)])
def test_job_preempted_while_it_saves_goes_on(
    live: Service, cluster: SlurmCluster, seconds: float, went_on: bool
) -> None:
    job_id = submit(live, f"{LONG} slow={seconds} once")
    until(live.run_dir(job_id).state(5).exists, seconds=60)
    other = cluster.fill("high")
    until(lambda: live.job(job_id)["attempt"] == 2, seconds=2 * LONGEST_STOP)
    cluster.run("scancel", other)
    job = live.wait(job_id, seconds=60)
    assert (job["status"], job["retries"]) == ("succeeded", 0)
    first, second = (started["resumed_step"] for started in live.reported(job_id, "started"))
    assert (first, second > 0) == (0, went_on)
    check_whole(live, job_id)
    check_gone(live, cluster, job_id)


@pytest.fixture
def small_disk(live: Service) -> Iterator[Path]:
    """A file that may fill what the run folders are on."""
    runs = live.home / "runs"
    runs.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", runs], capture_output=True, text=True)
    assert mounted.returncode == 0, f"a full disk wants one to fill, which root can mount: {mounted.stderr}"
    yield runs / "filler"
    subprocess.run(["umount", "--lazy", runs], check=True)


def test_job_on_a_full_disk_resumes_with_room(live: Service, cluster: SlurmCluster, small_disk: Path) -> None:
    job_id = submit(live, LONG)
    live.wait_for_step(job_id, 6)
    with small_disk.open("wb", buffering=0) as file:
        while shutil.disk_usage(small_disk).free:
            file.write(bytes(4096))
    until(lambda: live.job(job_id)["attempt"] == 2, seconds=60)
    small_disk.unlink()
    assert live.wait(job_id, seconds=60)["status"] == "succeeded"
    assert {retry["code"] for retry in live.reported(job_id, "retry")} == {"disk_full"}
    check_whole(live, job_id)
    check_gone(live, cluster, job_id)


def test_node_whose_prolog_fails_is_left_for_another(live: Service, cluster: SlurmCluster) -> None:
    broken = cluster.fail_prolog("n1")
    try:
        job_id = submit(live, "steps=3")
        job = live.wait(job_id, seconds=90)
    finally:
        broken.unlink()
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    (retry,) = live.reported(job_id, "retry")
    assert retry["code"] == "node_lost"
    assert "did not begin on n1: its prolog failed" in retry["message"]


def test_node_without_the_folder_is_left_for_another(live: Service, cluster: SlurmCluster) -> None:
    cluster.kill("slurmd-n1")
    cluster.start_node("n1", ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {live.home} && exec "$@"', "sh"))
    try:
        job_id = submit(live, "steps=3")
        job = live.wait(job_id, seconds=90)
    finally:
        cluster.kill("slurmd-n1")
        cluster.start_node("n1")
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    (retry,) = live.reported(job_id, "retry")
    assert "did not begin on n1: that node cannot write to the run folder" in retry["message"]
    assert "--exclude=n1" in job["command"]
