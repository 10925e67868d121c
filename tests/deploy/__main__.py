"""`python -m tests.deploy`: see run."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.deploy import engine, roots, steps, upgrade
from tests.deploy.engine import Engine
from tests.deploy.stack import Stack, copy_checkout
from tests.deploy.table import Table

ROOT = Path(__file__).parents[2]
WORK = Path(os.environ.get("FINETUNED_DEPLOY_WORK", "/var/tmp/finetuned-deploy"))
OVERLAYS = "docker-compose.yml:compose.cpu.yml"


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("tests/deploy/run needs root: it makes namespaces and runs a Docker engine")
    # Also in the background of a script, where the shell has them ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parts = sys.argv[1:] or ["drive", "upgrade"]
    table = Table()
    WORK.mkdir(parents=True, exist_ok=True)
    roots.install_tools()
    before = traces()
    try:
        table.run("make two Debian roots", make_roots)
        data = make_data()
        with engine.running(WORK) as running:
            table.run("make the base images", lambda: make_base_images(running))
            with running.machine.network():
                stack = make_stack(running, data, table)
                if "drive" in parts:
                    drive(stack, data, table)
                if "upgrade" in parts:
                    move(stack, data, table)
    finally:
        table.print()
    left = traces() - before
    if left or table.failed:
        sys.exit(f"failed: {table.failed}; left on the machine: {left or 'nothing'}")


def make_stack(running: Engine, data: Path, table: Table) -> Stack:
    copy_checkout(ROOT, WORK / "checkout")
    stack = Stack(running, WORK / "checkout")
    steps.prepare(stack, data, OVERLAYS)
    table.run("docker compose build", lambda: steps.build(stack))
    return stack


def drive(stack: Stack, data: Path, table: Table) -> None:
    try:
        table.run("docker compose up, first time", lambda: steps.start(stack))
        table.run("keys", lambda: steps.make_keys(stack))
        table.run("a job", lambda: steps.train(stack))
        table.run("an upload", lambda: steps.train_an_upload(stack, data))
        table.run("restarts", lambda: steps.restart_everything(stack))
        table.run("kills", lambda: steps.kill_everything(stack))
        table.run("a stubborn trainer", lambda: steps.stop_a_stubborn_trainer(stack))
        table.run("down and up", lambda: steps.take_down_and_up(stack))
        table.run("a reboot", lambda: steps.stop_the_engine(stack))
        table.run("backup and restore", lambda: steps.restore_a_backup(stack, WORK))
        table.run("profile tls", lambda: steps.serve_https(stack))
        table.run("profile monitoring", lambda: steps.watch(stack))
        table.run("no internet", lambda: steps.install_a_bundle(stack, WORK))
    finally:
        table.run("down --volumes", lambda: steps.remove(stack))


def move(stack: Stack, data: Path, table: Table) -> None:
    previous = Stack(stack.engine, WORK / "previous")
    table.run("build the previous release", lambda: upgrade.build_previous(previous, ROOT, data))
    try:
        table.run("upgrade", lambda: upgrade.upgrade(previous, stack, WORK))
        table.run("rollback", lambda: upgrade.go_back(previous, stack, WORK))
    finally:
        steps.clear(stack)


def make_roots() -> str:
    with ThreadPoolExecutor() as pool:
        both = [
            pool.submit(roots.make_engine, WORK / "engine", WORK / "engine.log"),
            pool.submit(roots.make_python, WORK / "python", WORK / "python.log"),
        ]
        for each in both:
            each.result()
    return "Debian sid with Docker and the services, Debian 12 with Python"


def make_base_images(running: Engine) -> str:
    engine.make_base_images(running, WORK, ROOT)
    return running.run("docker", "compose", "version").stdout.strip()


def make_data() -> Path:
    """The DATA_FOLDER, with a model and a dataset."""
    data = WORK / "data"
    model = "smollm2-135m-instruct"
    if not (data / "models" / model / "config.json").exists():
        environment = {**os.environ, "FINETUNED_HOME": str(data)}
        subprocess.run([sys.executable, "-m", "finetuned", "models", "add", model], env=environment, check=True)
    (data / "datasets").mkdir(exist_ok=True)
    (data / "datasets/quickstart.jsonl").write_bytes((ROOT / "examples/data/quickstart.jsonl").read_bytes())
    subprocess.run(["chmod", "-R", "a+rX", str(data)], check=True)
    return data


def traces() -> set[str]:
    """What an engine could leave on this machine: rules of the firewall, mounts, and network devices."""
    rules = subprocess.run(["iptables", "--list-rules"], capture_output=True, text=True).stdout.splitlines()
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{engine.CGROUP}")]
    ours = [str(WORK) + mount.partition(str(WORK))[2] for mount in mounts if mount.startswith(str(WORK))]
    return {*rules, *ours, *groups, *os.listdir("/sys/class/net")}


if __name__ == "__main__":
    main()
