"""What breaks a cluster, beside the service: Slurm's own parts, its operators, and jobs that are more urgent."""

import json
import os
import random
import re
import sched
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

import httpx
import sqlalchemy as sa

from benchmarks.soak.chaos import Chaos, Kinds, Process, send
from contract.failure import FailureCode
from contract.status import TERMINAL
from runtime.processes import parent_of
from store.models import Lease
from tests.support.processes import read_proc
from tests.support.servers import Servers
from tests.support.service import Service
from tests.support.slurm import NODES, SlurmCluster

PROFILE = {"launcher": "slurm", "partition": "low", "gpus_per_node": 2, "max_nodes": 2}
_SECONDS_BETWEEN_RETRIES = 1.0
_RUN = re.compile(r"/runs/([^/\0]+)/attempt-")
_PARTS = {b"slurm_job.sh": "script", b"slurm_script": "script", b"sbatch": "sbatch", b"srun": "srun"}


def write_profiles(home: Path, max_jobs: int) -> Path:
    file = home / "profiles.json"
    file.write_text(json.dumps({"low": PROFILE | {"max_jobs": max_jobs}}))
    return file


def processes_on_nodes(runs: Path) -> list[Process]:
    """Of the Slurm jobs whose run folders lie below `runs`, by their command lines: their environment is chosen."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        command = read_proc(pid, "cmdline")
        if f"{runs}/".encode() in command and parent_of(pid) is not None:
            job = _RUN.search(command.decode(errors="replace"))
            found.append(Process(pid, "", job[1] if job else "", _part(command)))
    return found


def _part(command: bytes) -> str:
    programs = [word.rpartition(b"/")[2] for word in command.split(b"\0")[:2]]
    known = next((_PARTS[program] for program in programs if program in _PARTS), None)
    return known or ("node" if b"slurm_node" in command else "rank")


class ClusterChaos(Chaos):
    """Strikes Slurm too. What an operator of the cluster would mend, it mends: a node that is drained, a part that is
    down, a job that was cancelled in Slurm by mistake."""

    seconds_between_strikes = (2.0, 6.0)

    def __init__(  # parameters: those of Chaos, with the cluster
        self,
        live: Service,
        servers: Servers,
        going: Callable[[], bool],
        agenda: sched.scheduler,
        choose: random.Random,
        cluster: SlurmCluster,
        engine: sa.Engine,
    ) -> None:
        self._cluster = cluster
        self._engine = engine
        super().__init__(live, servers, going, agenda, choose)

    def _strikes_on_jobs(self) -> Kinds:
        return {
            "a rank": (5, lambda: self._kill("a rank", "rank")),
            "a node's launcher": (2, lambda: self._kill("a node's launcher", "node")),
            "a job's srun": (1, lambda: self._kill("a job's srun", "srun")),
            "a job's script": (2, lambda: self._kill("a job's script", "script")),
            "a follower": (4, self._follower),
            "scancel": (4, self._scancel),
            "a preemption": (4, self._preempt),
        }

    def _strikes_on_the_service(self) -> Kinds:
        kept = ("a worker's main process", "all processes of a worker", "a worker stopped past its lease", "the API")
        ours = super()._strikes_on_the_service()
        return {
            "slurmctld": (4, lambda: self._controller((0.0, 1.0))),
            "slurmctld away for seconds": (2, lambda: self._controller((5.0, 20.0))),
            "slurmd": (4, self._slurmd),
            "the database restarted": ours["the database restarted"],
            **{kind: ours[kind] for kind in kept},
        }

    def mend(self) -> None:
        super().mend()
        if "slurmctld" not in self._hurt:
            with suppress(AssertionError):
                self._cluster.resume_drained()

    def _processes(self) -> list[Process]:
        return processes_on_nodes(self._live.home / "runs")

    def _kill(self, what: str, part: str) -> bool:
        victims = [process for process in self._processes() if process.part == part]
        if not victims:
            return False
        victim = self._choose.choice(victims)
        send(signal.SIGKILL, [victim.pid])
        return self._note(what, None, victim.job_id)

    def _follower(self) -> bool:
        with self._engine.connect() as connection:
            followed = connection.execute(
                sa.select(Lease.job_id, Lease.worker, Lease.pid).where(Lease.pid.is_not(None)).order_by(Lease.job_id)
            ).all()
        if not followed:
            return False
        job_id, worker, pid = self._choose.choice([(row[0], row[1], int(row[2] or 0)) for row in followed])
        send(signal.SIGKILL, [pid])
        return self._note("a follower", worker, job_id)

    def _scancel(self) -> bool:
        if "slurmctld" in self._hurt:
            return False
        found = self._cluster.jobs("PENDING", "RUNNING")
        ours = sorted(number for number, comment in found.items() if "/" in comment)
        if not ours:
            return False
        number = self._choose.choice(ours)
        self._cluster.run("scancel", "--quiet", number)
        job_id = found[number].partition("/")[0]
        self._retry_later(job_id)
        return self._note("scancel", None, job_id)

    def _retry_later(self, job_id: str) -> None:
        """Its owner retries it where it has failed of that."""
        self._agenda.enter(_SECONDS_BETWEEN_RETRIES, 2, self._retry, (job_id,))

    def _retry(self, job_id: str) -> None:
        try:
            job = self._live.client.get(f"/jobs/{job_id}").raise_for_status().json()
            if (job["failure"] or {}).get("code") == FailureCode.CANCELLED_IN_CLUSTER:
                self._live.client.post(f"/jobs/{job_id}/retry").raise_for_status()
            elif job["status"] in TERMINAL:
                return
        except httpx.HTTPError:
            pass  # the API is away, or has this request already: the next look shows
        self._retry_later(job_id)

    def _preempt(self) -> bool:
        if "slurmctld" in self._hurt or "high" in self._hurt or not self._processes():
            return False
        number = self._cluster.fill("high")
        self._hurt.add("high")
        self._later((5.0, 25.0), self._end_preemption, number)
        return self._note("a preemption")

    def _end_preemption(self, number: str) -> None:
        if "slurmctld" in self._hurt:
            self._later((1.0, 2.0), self._end_preemption, number)
            return
        self._cluster.run("scancel", "--quiet", number)
        self._hurt.discard("high")

    def _controller(self, seconds: tuple[float, float]) -> bool:
        if "slurmctld" in self._hurt:
            return False
        self._hurt.add("slurmctld")
        self._cluster.kill("slurmctld")
        self._later(seconds, self._start_controller)
        return self._note("slurmctld" if seconds[0] == 0 else "slurmctld away for seconds")

    def _start_controller(self) -> None:
        self._cluster.start_controller()
        self._hurt.discard("slurmctld")

    def _slurmd(self) -> bool:
        name = self._choose.choice(NODES)
        if name in self._hurt:
            return False
        self._hurt.add(name)
        self._cluster.kill(f"slurmd-{name}")
        self._later((0.0, 8.0), self._start_slurmd, name)
        return self._note("slurmd", name)

    def _start_slurmd(self, name: str) -> None:
        self._cluster.start_node(name)
        self._hurt.discard(name)


def left_on_cluster(cluster: SlurmCluster, runs: Path) -> Collection[str]:
    """Processes on its nodes, and jobs in Slurm."""
    jobs = cluster.jobs("PENDING", "RUNNING", "COMPLETING").values()
    return [f"{process}" for process in processes_on_nodes(runs)] + [f"Slurm job {comment}" for comment in jobs]
