"""A machine for a Docker engine, made of namespaces: its mounts, processes, network and firewall end with it."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}

_BOOT = """
root=$1 docker=$2; shift 2
mount --bind "$root" "$root"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/var/lib/docker"
mount --bind "$docker" "$root/var/lib/docker"
for folder; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
done
echo "nameserver 10.0.2.3" > "$root/etc/resolv.conf"
ip link set lo up
cd "$root"
mkdir -p .old
pivot_root . .old
umount --lazy /.old
# As the first process it reaps the orphans of the others.
exec bash -c 'sleep infinity & wait'
"""


class Machine(NamedTuple):
    pid: int

    def command(self, *words: str, folder: Path = Path("/"), **environment: str) -> list[str]:
        """The command that runs these words on the machine, in one of its folders."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--"]
        variables = [f"{name}={value}" for name, value in {**ENVIRONMENT, **environment}.items()]
        return [*enter, "env", "--ignore-environment", f"--chdir={folder}", *variables, *words]

    @contextmanager
    def network(self) -> Iterator[None]:
        """Moves this thread, and those that it starts, into the machine's network."""
        with open("/proc/thread-self/ns/net") as own, open(f"/proc/{self.pid}/ns/net") as machines:
            _enter(machines)
            try:
                yield
            finally:
                _enter(own)


def _enter(network: IO[str]) -> None:
    # os.setns is there from Python 3.12 on.
    if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def running(root: Path, docker: Path, shared: Sequence[Path]) -> Iterator[Machine]:
    """A machine whose file system is `root`, with `docker` as /var/lib/docker and these folders at the same paths."""
    docker.mkdir(parents=True, exist_ok=True)
    namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation=private"]
    boot = ["bash", "-ec", _BOOT, "boot", str(root), str(docker), *map(str, shared)]
    # If this process is killed, so are they.
    ours = ["setpriv", "--pdeathsig=KILL"]
    machine = subprocess.Popen([*ours, "unshare", *namespaces, *boot])
    network = None
    try:
        pid = _first_process(machine, root)
        network = subprocess.Popen(
            [*ours, "slirp4netns", "--configure", "--mtu=1500", "--disable-host-loopback", str(pid), "tap0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        yield Machine(pid)
    finally:
        if network is not None:
            network.terminate()
            network.wait()
        machine.send_signal(signal.SIGKILL)  # --kill-child ends the first process, and that ends all others
        machine.wait()


def _first_process(machine: subprocess.Popen[bytes], root: Path) -> int:
    children = Path(f"/proc/{machine.pid}/task/{machine.pid}/children")
    for _ in range(200):
        if machine.poll() is not None:
            raise SystemExit(f"unshare exited with {machine.returncode}")
        for pid in children.read_text().split():
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"bash\0-c\0sleep infinity"):
                return int(pid)
        time.sleep(0.1)
    raise SystemExit(f"{root} did not become a machine within 20 s")


def empty_cgroups(name: str) -> None:
    """Removes the empty control groups that the engine's containers had."""
    for folder in sorted(Path("/sys/fs/cgroup").glob(f"**/{name}/**/"), reverse=True):
        os.rmdir(folder)
