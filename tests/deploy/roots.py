"""Two folders with a Debian in each, made once: one for the engine and the services, one for Python's base image."""

import shutil
import subprocess
from pathlib import Path

ENGINE_PACKAGES = (
    "docker.io docker-cli docker-compose docker-buildx postgresql-18 valkey-server caddy prometheus gosu libcap2-bin"
)
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")


def install_tools() -> None:
    """debootstrap makes the roots; slirp4netns gives the engine's machine a network without a rule of this machine's
    firewall, which iptables lists."""
    missing = [name for name in ("debootstrap", "slirp4netns", "iptables") if shutil.which(name) is None]
    if missing:
        _run("apt-get", "install", "--yes", "--quiet", *missing)


def make_engine(root: Path, log: Path) -> None:
    """Debian sid, which has a current Docker with Compose v2, and PostgreSQL and Valkey as in docker-compose.yml."""
    if _is_ready(root):
        return
    _debootstrap(root, "sid", "ca-certificates,iptables,iproute2,git,curl", log)
    postgres = root / "etc/postgresql-common"
    postgres.mkdir(parents=True, exist_ok=True)
    (postgres / "createcluster.conf").write_text("create_main_cluster = false\n")
    no_services = root / "usr/sbin/policy-rc.d"
    no_services.write_text("#!/bin/sh\nexit 101\n")
    no_services.chmod(0o755)
    install = f"""
        mount -t proc proc '{root}/proc'
        exec chroot '{root}' env DEBIAN_FRONTEND=noninteractive \\
            apt-get install --yes --no-install-recommends {ENGINE_PACKAGES}"""
    # A mount namespace of its own: no mount is left if this is interrupted.
    _run("unshare", "--mount", "bash", "-ec", install, log=log)
    _finish(root)


def make_python(root: Path, log: Path) -> None:
    """What python:3.11-slim has, from Debian 12."""
    if _is_ready(root):
        return
    packages = "python3,python3-dev,python3-venv,python3-pip,python-is-python3,ca-certificates"
    _debootstrap(root, "bookworm", packages, log)
    _finish(root)


def _debootstrap(root: Path, suite: str, packages: str, log: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    _run("debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root), _mirror(), log=log)


def _mirror() -> str:
    """The address of Debian that this machine's own apt uses."""
    lines = ["$(REPO_URI) $(CODENAME) $(COMPONENT) $(CREATED_BY)"]
    listed = subprocess.check_output(["apt-get", "indextargets", "--format", *lines], text=True)
    for line in listed.splitlines():
        address, *kind = line.split()
        if kind == ["bookworm", "main", "Packages"]:
            return address
    raise SystemExit("tests/deploy/run needs Debian 12: apt's sources name no bookworm main")


def _finish(root: Path) -> None:
    # Where a proxy or a mirror has a certificate of its own, this machine's list has its authority.
    shutil.copyfile(Path("/") / CERTIFICATES, root / CERTIFICATES)
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    _stamp(root).touch()


def _is_ready(root: Path) -> bool:
    return _stamp(root).exists()


def _stamp(root: Path) -> Path:
    return root.with_name(f"{root.name}.ready")


def _run(*command: str, log: Path | None = None) -> None:
    with open(log or "/dev/null", "ab") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:3])} ... exited with {done.returncode}; see {log}")
