"""A real Slurm for tests, from Debian's packages: a controller and two nodes, all of them on this machine.

The nodes have cores and no GPUs. Jobs are preempted by those of a higher partition.
"""

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.servers import free_port
from tests.support.waiting import until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
HAS_SLURM = all(shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") for program in PROGRAMS)
NO_SLURM = (
    "Jobs on a cluster were not tested: there is no Slurm here (on Debian: apt-get install slurmctld slurmd "
    "slurm-client slurm-wlm-basic-plugins munge)."
)
NODES = ("n1", "n2")
GRACE = 10
"""Seconds from a preemption to its end as a cancel, which takes KILL_WAIT more."""
KILL_WAIT = 30
"""Seconds from SIGTERM to SIGKILL of a job that is cancelled."""
LONGEST_STOP = GRACE + KILL_WAIT
_CONFIGURATION = """
ClusterName=finetuned
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
ReturnToService=2
SlurmdTimeout=30
KillWait={kill_wait}
MessageTimeout=5
Prolog={folder}/prolog
{nodes}PartitionName=low Nodes=ALL Default=YES State=UP PriorityTier=1 PreemptMode=CANCEL GraceTime={grace}
PartitionName=high Nodes=ALL State=UP PriorityTier=10 PreemptMode=OFF
"""
_NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=2000 State=UNKNOWN\n"


@dataclass
class SlurmCluster:
    folder: Path
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    """munged, slurmctld and slurmd-NODE."""

    @property
    def environment(self) -> dict[str, str]:
        """For what runs its commands."""
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        return {**os.environ, "PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def start_controller(self) -> None:
        self.start("slurmctld", "slurmctld", "-D")
        until(self._answers, seconds=20)

    def start_node(self, name: str, inside: Sequence[str] = ()) -> None:
        """`inside` is a command that runs another, such as with other file systems."""
        # Debian's slurmd looks for its other half in a folder of its own build.
        stepd = shutil.which("slurmstepd", path=self.environment["PATH"])
        self.start(f"slurmd-{name}", *inside, "slurmd", "-D", "-N", name, "-d", str(stepd))

    def fail_prolog(self, name: str) -> Path:
        """Has the prolog of every job fail on a node, for as long as there is the file that this returns."""
        broken = self.folder / f"broken-{name}"
        broken.touch()
        return broken

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def run(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self, *states: str) -> dict[str, str]:
        """The comments of the jobs by id, of all or of those in these states."""
        command = ("squeue", f"--states={','.join(states) or 'all'}", "--noheader", "--sort=i", "--format=%i|%k")
        return dict(line.split("|") for line in self.run(*command).splitlines())

    def fill(self, partition: str = "low", seconds: int = 1000) -> str:
        """A job that takes both nodes. Its id."""
        options = ("--parsable", f"--partition={partition}", "--exclusive", f"--nodes={len(NODES)}", "--time=60")
        return self.run("sbatch", *options, "--output=/dev/null", f"--wrap=sleep {seconds}")

    def recover(self) -> None:
        """Leaves no job, and the nodes free."""
        for name, process in [*self.processes.items()]:
            if process.poll() is not None:
                self.start_controller() if name == "slurmctld" else self.start_node(name.removeprefix("slurmd-"))
        if live := self.jobs("PENDING", "RUNNING"):
            self.run("scancel", "--quiet", *live)
        self.resume_drained()
        until(self._is_idle, seconds=40)

    def resume_drained(self) -> None:
        """A controller that has forgotten a start drains the node of the second one."""
        if drained := [node for node, state in self._states().items() if state.startswith("drain")]:
            self.run("scontrol", "update", f"nodename={','.join(drained)}", "state=resume")

    def _is_idle(self) -> bool:
        return set(self._states().values()) == {"idle"}

    def _states(self) -> dict[str, str]:
        """Of each node."""
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    def _answers(self) -> bool:
        return subprocess.run(["squeue"], env=self.environment, capture_output=True).returncode == 0


@contextmanager
def running_cluster() -> Iterator[SlurmCluster]:
    with tempfile.TemporaryDirectory(prefix="finetuned-slurm-") as name:
        cluster = SlurmCluster(Path(name))
        _configure(cluster.folder)
        try:
            _start_munge(cluster)
            cluster.start_controller()
            for node in NODES:
                cluster.start_node(node)
            until(cluster._is_idle, seconds=30)
            yield cluster
        finally:
            _stop(cluster)


def _configure(folder: Path) -> None:
    nodes = "".join(_NODE.format(name=name, port=free_port()) for name in NODES)
    given = {
        "folder": folder,
        "port": free_port(),
        "grace": GRACE,
        "kill_wait": KILL_WAIT,
        "user": getpass.getuser(),
        "nodes": nodes,
    }
    (folder / "slurm.conf").write_text(_CONFIGURATION.format(**given))
    (folder / "state").mkdir()
    prolog = folder / "prolog"
    prolog.write_text(f"#!/bin/sh\ntest ! -e {folder}/broken-$SLURMD_NODENAME\n")
    prolog.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)


def _start_munge(cluster: SlurmCluster) -> None:
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munge.seed"}
    options = [f"--{option}={cluster.folder / name}" for option, name in files.items()]
    cluster.start("munged", "munged", "--foreground", "--force", *options)
    until((cluster.folder / "munge.socket").exists)


def _stop(cluster: SlurmCluster) -> None:
    """The jobs first: a node that is stopped leaves its jobs running."""
    try:
        cluster.recover()
    finally:
        for process in reversed(cluster.processes.values()):
            process.terminate()
            process.wait(20)
