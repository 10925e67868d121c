"""Jobs on a cluster, as their owners see them."""

import json
import stat
from pathlib import Path

import pytest

from tests.cluster.runs import LONG, check_gone, check_whole, restart_worker, slurm_id, submit
from tests.support.service import SECRET_TOKEN, Service
from tests.support.slurm import SlurmCluster
from tests.support.waiting import until


def test_job_trains_in_a_job_of_slurm(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, "steps=3 environment")
    job = live.wait(job_id)
    assert job["status"] == "succeeded", job
    check_whole(live, job_id, steps=3)
    assert job["command"].startswith("sbatch ")
    environment = json.loads((live.run_dir(job_id).path / "environment.json").read_text())
    assert environment["SLURM_JOB_ID"] == slurm_id(cluster, job_id)
    assert SECRET_TOKEN not in environment.values()
    assert "FINETUNED_DATABASE_URL" not in environment


def test_job_that_slurm_has_not_started_says_why(live: Service, cluster: SlurmCluster) -> None:
    other = cluster.fill()
    job_id = submit(live, "steps=3")
    waits = until(
        lambda: (queue := live.job(job_id)["queue"]) and queue["values"].get("reason") == "Resources" and queue
    )
    assert (waits["code"], waits["position"]) == ("in_cluster_queue", 1)
    assert until(lambda: live.job(job_id)["queue"]["estimated_start_at"])
    assert live.job(job_id)["progress"] is None
    cluster.run("scancel", other)
    assert live.wait(job_id)["queue"] is None
    check_whole(live, job_id, steps=3)


def test_cancelled_job_has_left_the_cluster(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, LONG)
    live.wait_for_step(job_id, 1)
    live.ask("cancel", job_id)
    assert live.wait(job_id)["status"] == "cancelled"
    check_gone(live, cluster, job_id)


def test_preempted_job_goes_on_as_if_undisturbed(live: Service, cluster: SlurmCluster) -> None:
    job_id = submit(live, LONG)
    live.wait_for_step(job_id, 3)
    other = cluster.fill("high")
    until(lambda: live.job(job_id)["attempt"] == 2, seconds=60)
    cluster.run("scancel", other)
    job = live.wait(job_id, seconds=60)
    assert (job["status"], job["retries"]) == ("succeeded", 0)
    assert any("preempted" in log["message"] for log in live.reported(job_id, "log"))
    check_whole(live, job_id)


def test_unknown_profile_is_refused_by_name(live: Service, cluster: SlurmCluster) -> None:
    recipe = {"model": "tiny", "dataset": "rows.jsonl", "resources": {"profile": "fast"}}
    error = live.client.post("/jobs", json=recipe).json()["error"]
    assert error["param"] == "resources.profile"
    assert "the workers offer low, short" in error["message"]


@pytest.mark.exhaustive
def test_lost_reply_submits_nothing_twice(live: Service, cluster: SlurmCluster, tmp_path: Path) -> None:
    wrapper = tmp_path / "sbatch"
    wrapper.write_text(
        f'#!/bin/bash\n/usr/bin/sbatch "$@" >> {tmp_path}/replies\n'
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2\nexit 1\n"
    )
    wrapper.chmod(stat.S_IRWXU)
    try:
        restart_worker(live, PATH=f"{tmp_path}:{cluster.environment['PATH']}")
        job_id = submit(live, "steps=3")
        assert live.wait(job_id, seconds=60)["status"] == "succeeded"
    finally:
        restart_worker(live)
    assert len((tmp_path / "replies").read_text().split()) == 1
    check_whole(live, job_id, steps=3)
