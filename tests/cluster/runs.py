"""What the tests of a cluster ask of a job."""

from typing import Any

from tests.support.fake_trainer import losses
from tests.support.service import Service
from tests.support.slurm import SlurmCluster
from tests.support.waiting import until

STEPS = 40
LONG = f"steps={STEPS} sleep=0.2 every=5"
"""A job of eight seconds."""


def submit(live: Service, name: str, profile: str = "low", **resources: Any) -> str:
    """The id of a new job."""
    return live.submit(name=name, resources={"profile": profile, **resources})["id"]


def slurm_id(cluster: SlurmCluster, job_id: str, attempt: int = 1) -> str:
    """The Slurm job of an attempt, once there is one."""
    comment = f"{job_id}/{attempt}"
    return until(lambda: next((number for number, its in cluster.jobs().items() if its == comment), None))


def check_whole(live: Service, job_id: str, steps: int = STEPS) -> None:
    """Each step is there once, and the curve is that of a run that nobody has disturbed."""
    columns = live.metrics(job_id)
    assert columns["step"] == list(range(1, steps + 1))
    assert columns["loss"] == losses(steps)


def check_gone(live: Service, cluster: SlurmCluster, job_id: str) -> None:
    """No process of it is left, and no job in Slurm."""
    assert live.processes(job_id) == []
    left = cluster.jobs("PENDING", "RUNNING", "COMPLETING").values()
    assert [comment for comment in left if comment.startswith(job_id)] == []


def restart_worker(live: Service, **settings: str) -> None:
    """With other settings, or with those of the service."""
    live.stop_worker("login")
    live.start_worker("login", **settings)
    until(lambda: live.client.get("/workers").json()["data"], seconds=90)
