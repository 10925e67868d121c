"""Looks at a cluster with the profiles of this worker: what its operator should know before the first job."""

import re
import shlex
import sys
import time
from pathlib import Path

from contract import ids
from worker.launchers import slurm_commands as slurm
from worker.launchers.cluster_trainer import ClusterFault
from worker.launchers.profiles import SlurmProfile
from worker.launchers.slurm import job_environment, slurm_conf
from worker.launchers.slurm_ending import seconds
from worker.settings import WorkerSettings

_OLDEST = (22, 5)
_TO_SAVE = 30
"""Seconds that a trainer should have from SIGTERM to SIGKILL."""
_CLOCKS = 2.0
"""Seconds that two clocks may differ. Starts that a controller has forgotten are told by their time."""
_SET_CLOCKS = "set up NTP on all machines of the cluster and on the file server, and look at `chronyc tracking`"
_BUSY = ("nodes are busy", "immediate", "revoked", "held")


_OF_THE_TASK = "task 0:"
"""srun says how its task has ended; what else it says is Slurm's refusal of the profile."""


def check_cluster(settings: WorkerSettings) -> str:
    """Returns what was found. Raises ClusterFault."""
    try:
        found = [_check_version(slurm.run(["sbatch", "--version"]).strip())]
        _check_configuration()
        found += [
            _check_profile(settings, name, profile)
            for name, profile in settings.profiles.items()
            if isinstance(profile, SlurmProfile)
        ]
    except slurm.SlurmMissing as error:
        raise ClusterFault(f"{error}: run the worker where jobs are submitted") from error
    except slurm.ControllerUnreachable as error:
        raise ClusterFault(f"Slurm's controller does not answer: {error}") from error
    except slurm.SlurmRefused as error:
        raise ClusterFault(str(error)) from error
    return "; ".join(found)


def _check_version(said: str) -> str:
    release = said.split()[-1].split(".")
    if tuple(int(part) for part in release[:2]) < _OLDEST:
        raise ClusterFault(f"{said} is older than 22.05")
    return said


def _check_configuration() -> None:
    """The controller's clock, and the time that it leaves to a job that is cancelled or at its time limit."""
    before = time.time()
    said = slurm.run(["scontrol", "show", "config"])
    if now := re.search(r"^Configuration data as of (\d+)$", said, re.MULTILINE):
        _compare("the controller's clock", float(now[1]), (before - 1, time.time()))  # in whole seconds
    wait = re.search(r"^KillWait\s*=\s*(\d+)", said, re.MULTILINE)
    if wait and int(wait[1]) < _TO_SAVE:
        raise ClusterFault(
            f"KillWait is {wait[1]} s, in which a job that is cancelled or at its time limit may not save: set "
            f"{_TO_SAVE} or more in slurm.conf"
        )


def _compare(whose: str, reading: float, between: tuple[float, float], other: str = "the worker's") -> None:
    """Raises ClusterFault where a clock that was read between these two times shows another one."""
    earliest, latest = between
    off = max(earliest - reading, reading - latest)
    if off > _CLOCKS:
        is_at = "behind" if reading < earliest else "ahead of"
        raise ClusterFault(f"{whose} is {off:.0f} s {is_at} {other}: {_SET_CLOCKS}")


def _check_profile(settings: WorkerSettings, name: str, profile: SlurmProfile) -> str:
    if profile.partition is not None:
        _check_partition(name, profile.partition)
    if profile.image is not None and not Path(profile.image).exists():
        raise ClusterFault(f"profile {name}, image: {profile.image} does not exist here")
    return f"profile {name}: {_try_node(settings, name, profile)}"


def _check_partition(name: str, partition: str) -> None:
    try:
        words = slurm.run(["scontrol", "show", "partition", partition, "--oneliner"]).split()
    except slurm.SlurmRefused as error:
        raise ClusterFault(f"profile {name}, partition: Slurm has no {partition}: {error}") from error
    known = dict(word.partition("=")[::2] for word in words if "=" in word)
    given = known.get("GraceTime", "0")
    grace = int(given) if given.isdigit() else seconds(given) or 0
    if known.get("PreemptMode", "OFF") != "OFF" and grace < _TO_SAVE:
        raise ClusterFault(
            f"profile {name}: partition {partition} is preempted with a GraceTime of {grace} s, in which a job may not "
            f"save: set {_TO_SAVE} or more in slurm.conf"
        )


def _try_node(settings: WorkerSettings, name: str, profile: SlurmProfile) -> str:
    """Reads and writes a file of the home folder on a node, with the Python that would train there."""
    probe = settings.home / ids.new_id("probe_")
    probe.write_text("shared")
    _compare(f"the clock of the file system of {settings.home}", probe.stat().st_mtime, (time.time(),) * 2)
    python = "true" if profile.image else f"{shlex.quote(sys.executable)} --version"
    script = f"cat {shlex.quote(str(probe))} && {python} && date +%s.%N > {shlex.quote(str(probe))}"
    command = ["srun", "--quiet", "--immediate=10", "--time=1", *_options(profile), "sh", "-c", script]
    began = time.time()
    try:
        slurm.run(command, environment=job_environment() | slurm_conf(), longest=30.0)
        _compare_node(name, probe, began)
    except (slurm.SlurmRefused, slurm.ControllerUnreachable) as error:
        if any(words in str(error).lower() for words in (*_BUSY, "longer than")):
            return "no node is free, so the shared folder and the node's clock were not tried"
        if _OF_THE_TASK not in str(error):
            raise ClusterFault(f"profile {name}: srun says: {error}") from error
        raise ClusterFault(
            f"profile {name}: a node cannot use {settings.home} or run {sys.executable}: put both on a file system "
            f"that the nodes share. It said: {error}"
        ) from error
    finally:
        probe.unlink(missing_ok=True)
    return "a node uses the home folder, and its clock is right"


def _compare_node(name: str, probe: Path, began: float) -> None:
    """Compares the node's clock, which it has written down, with the worker's and with that of the file system."""
    with probe.open() as file:  # NFS asks its server then
        reading = float(file.read())
        _compare(f"profile {name}: the node's clock", reading, (began, time.time()))
        _compare(f"profile {name}: the node's clock", reading, (probe.stat().st_mtime,) * 2, "its file system's")


def _options(profile: SlurmProfile) -> list[str]:
    given = {
        "partition": profile.partition,
        "account": profile.account,
        "gres": f"{profile.gres}:1" if profile.gres else None,
    }
    return [*(f"--{option}={value}" for option, value in given.items() if value), *profile.options]
