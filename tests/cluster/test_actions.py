"""What owners and operators do to a job on a cluster."""

import pytest

from tests.cluster.runs import LONG, check_gone, check_whole, slurm_id, submit
from tests.support.service import Service
from tests.support.slurm import SlurmCluster
from tests.support.waiting import until

pytestmark = pytest.mark.exhaustive


def test_paused_job_resumes_exactly(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, LONG)
    live.wait_for_step(job_id, 3)
    live.ask("pause", job_id)
    live.wait(job_id, "paused")
    check_gone(live, cluster, job_id)
    live.ask("resume", job_id)
    assert live.wait(job_id, seconds=60)["status"] == "succeeded"
    check_whole(live, job_id)


def test_job_paused_in_the_clusters_queue_leaves_it(live: Service, cluster: SlurmCluster) -> None:
    other = cluster.fill()
    job_id = submit(live, "steps=3")
    number = slurm_id(cluster, job_id)
    live.ask("pause", job_id)
    live.wait(job_id, "paused")
    assert number not in cluster.jobs("PENDING")
    cluster.run("scancel", other)
    live.ask("resume", job_id)
    assert live.wait(job_id, seconds=60)["status"] == "succeeded"
    check_whole(live, job_id, steps=3)


def test_forced_cancel_waits_for_nothing(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, "steps=1000 sleep=0.2 stubborn orphan")
    live.wait_for_step(job_id, 1)
    live.client.post(f"/jobs/{job_id}/cancel", params={"force": True}).raise_for_status()
    assert live.wait(job_id)["status"] == "cancelled"
    check_gone(live, cluster, job_id)


def test_job_cancelled_in_slurm_goes_on_after_a_retry(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, LONG)
    live.wait_for_step(job_id, 3)
    cluster.run("scancel", slurm_id(cluster, job_id))
    failure = live.wait(job_id, seconds=60)["failure"]
    assert (failure["code"], failure["retryable"]) == ("cancelled_in_cluster", False)
    live.ask("retry", job_id)
    assert live.wait(job_id, "succeeded", seconds=60)
    check_whole(live, job_id)


def test_job_goes_on_after_its_time_limit(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, "steps=100 sleep=0.7 every=20", profile="short")
    job = live.wait(job_id, seconds=240)
    assert (job["status"], job["retries"]) == ("succeeded", 0)
    assert job["attempt"] > 1
    assert any("time limit of 00:01:00" in log["message"] for log in live.reported(job_id, "log"))
    check_whole(live, job_id, steps=100)


def test_job_on_two_nodes_has_every_step_once(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, "steps=5 sleep=0.1", nodes=2)
    assert live.wait(job_id, seconds=60)["status"] == "succeeded"
    check_whole(live, job_id, steps=5)
    check_gone(live, cluster, job_id)


def test_job_on_two_nodes_leaves_both(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, LONG, nodes=2)
    live.wait_for_step(job_id, 3)
    until(lambda: (live.run_dir(job_id).path / "trainer-1.log").exists())
    live.ask("cancel", job_id)
    assert live.wait(job_id, seconds=60)["status"] == "cancelled"
    check_gone(live, cluster, job_id)


def test_trainers_exit_code_is_reported(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, "steps=2 exit=3")
    failure = live.wait(job_id, seconds=90)["failure"]
    assert failure["code"] == "trainer_crashed"
    assert "exit code 3" in failure["message"]
