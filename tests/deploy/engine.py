"""A Docker engine on its own machine, and the stand-ins for the base images that a registry would have."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.deploy import machine
from tests.deploy.machine import Machine

CGROUP = "finetuned-deploy"
STANDS_IN = ("postgres:18", "valkey/valkey:9", "caddy:2", "prom/prometheus:v3.14.0")
"""What docker-compose.yml takes from registries. The programs are Debian's."""
IMAGES = Path(__file__).parent / "images"


class Engine:
    def __init__(self, machine: Machine, log: Path) -> None:
        self.machine, self._log = machine, log
        self._dockerd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # The containerd store is what new installations have from Docker 29 on.
        options = ["--feature", "containerd-snapshotter=true", f"--cgroup-parent=/{CGROUP}"]
        with open(self._log, "ab") as log:
            self._dockerd = subprocess.Popen(self.machine.command("dockerd", *options), stdout=log, stderr=log)
        for _ in range(300):
            if self._dockerd.poll() is not None:
                raise SystemExit(f"dockerd exited with {self._dockerd.returncode}; see {self._log}")
            if self.run("docker", "version", check=False).returncode == 0:
                return
            time.sleep(0.2)
        raise SystemExit(f"dockerd did not answer within a minute; see {self._log}")

    def stop(self) -> None:
        """Stops it as a shutdown of a machine does: it stops its containers, all at once."""
        assert self._dockerd is not None
        self.run("pkill", "--exact", "dockerd")
        self._dockerd.wait()

    def run(self, *words: str, folder: Path = Path("/"), check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command on the machine. Raises RuntimeError with what it printed if it fails."""
        command = self.machine.command(*words, folder=folder)
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def save(self, file: Path, *words: str, folder: Path) -> None:
        """Writes what a command of the machine prints to a file."""
        with file.open("wb") as output:
            subprocess.run(self.machine.command(*words, folder=folder), stdout=output, check=True)

    def load(self, file: Path, *words: str, folder: Path) -> None:
        """Runs a command on the machine that reads a file."""
        with file.open("rb") as read:
            command = self.machine.command(*words, folder=folder)
            subprocess.run(command, stdin=read, stdout=subprocess.DEVNULL, check=True)

    def pipe(self, producer: Sequence[str], *words: str) -> None:
        """Runs a command on the machine that reads what a command of this one writes."""
        with subprocess.Popen(producer, stdout=subprocess.PIPE) as writing:
            subprocess.run(self.machine.command(*words), stdin=writing.stdout, stdout=subprocess.DEVNULL, check=True)
        if writing.returncode:
            raise RuntimeError(f"{' '.join(producer[:3])} exited with {writing.returncode}")


@contextmanager
def running(work: Path) -> Iterator[Engine]:
    """An engine on a machine that shares the work folder with this one."""
    with machine.running(work / "engine", work / "docker", [work]) as made:
        engine = Engine(made, work / "dockerd.log")
        engine.start()
        try:
            yield engine
        finally:
            engine.stop()
    machine.empty_cgroups(CGROUP)


def has_image(engine: Engine, name: str) -> bool:
    return engine.run("docker", "image", "inspect", name, check=False).returncode == 0


def make_base_images(engine: Engine, work: Path, root: Path) -> None:
    """python:3.11-slim-trixie and what stands in for the servers' images, from the two roots."""
    if not has_image(engine, "python:3.11-slim-trixie"):
        _take_torch(work / "python", root)
        python = ["tar", "--directory", str(work / "python"), "--create", "."]
        engine.pipe(python, "docker", "import", "--change", 'CMD ["python3"]', "-", "python:3.11-slim-trixie")
    if not has_image(engine, "services-base"):
        services = ["tar", "--directory", str(work / "engine"), "--one-file-system", "--create"]
        without = ["--exclude=./var/lib/docker", "--exclude=./usr/sbin/dockerd", "--exclude=./usr/libexec/docker"]
        engine.pipe([*services, *without, "."], "docker", "import", "-", "services-base")
    copied = work / "images"
    shutil.copytree(IMAGES, copied, dirs_exist_ok=True)
    for name in STANDS_IN:
        folder = re.sub(r"(.*/)?(\w+):.*", r"\2", name)
        engine.run("docker", "build", "--quiet", "--tag", name, str(copied / folder))


def _take_torch(work: Path, root: Path) -> None:
    """Puts the CPU's build of torch where the pip of the base image finds it. This machine's pip gets it from where its
    configuration says, or from PyTorch's own index."""
    wheels = work / "wheels"
    lock = root / "docker/torch-cpu.lock"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    index = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    done = subprocess.run([*command, "--dest", wheels, "--requirement", lock], capture_output=True)
    if done.returncode:
        subprocess.run([*command, *index, "--dest", wheels, "--requirement", lock], check=True)
    (work / "etc/pip.conf").write_text("[global]\nfind-links = /wheels\n")
