"""From the previous release to this one with jobs in every state, and back by restoring."""

import secrets
import subprocess
import time
from pathlib import Path

from tests.deploy import steps
from tests.deploy.stack import Stack

PREVIOUS = "cdc0194"
"""Nothing is released yet: the commit before this deployment stands in for a release."""

_WITHOUT_GPU = "services: {worker: {deploy: !reset null}}\n"


def build_previous(stack: Stack, root: Path, data: Path) -> str:
    stack.folder.mkdir(exist_ok=True)
    archive = subprocess.run(["git", "-C", str(root), "archive", PREVIOUS], stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-C", str(stack.folder), "--extract"], input=archive.stdout, check=True)
    stack.key = secrets.token_hex(24)
    password = secrets.token_hex(24)
    (stack.folder / ".env").write_text((stack.folder / ".env.example").read_text())
    stack.set_variables(
        ADMIN_KEY=stack.key, POSTGRES_PASSWORD=password, DATA_FOLDER=str(data), COMPOSE_PROJECT_NAME="finetuned"
    )
    (stack.folder / "docker-compose.override.yml").write_text(_WITHOUT_GPU)
    for part in ("api", "worker"):
        command = ("docker", "build", "--quiet", f"--file=docker/{part}.Dockerfile", f"--tag=finetuned-{part}", ".")
        stack.engine.run(*command, folder=stack.folder)
    return PREVIOUS


def upgrade(previous: Stack, stack: Stack, work: Path) -> str:
    """Leaves the new version running, and the previous one's dump and files in the work folder."""
    previous.compose("up", "--detach", "--no-build")
    previous.wait_until_ready()
    done, running, paused, queued = fill(previous)
    back_up(previous, work)
    (stack.folder / "secrets/database_password").write_text(variable(previous, "POSTGRES_PASSWORD"))
    (stack.folder / "secrets/admin_key").write_text(previous.key)
    stack.key = previous.key
    began = time.monotonic()
    stack.compose("up", "--detach")
    stack.wait_until_ready()
    seconds = time.monotonic() - began
    assert stack.job(done)["status"] == "succeeded"
    assert stack.job(paused)["status"] == "paused"
    with stack.client() as client:
        client.jobs.at(paused).resume()
    for job, steps_of_it in ((running, 20), (queued, 3), (paused, 3)):
        stack.wait(job)
        stack.check_steps(job, steps_of_it)
    return f"ready after {seconds:.0f} s; a job that ran, one that waited and one that was paused went on and succeeded"


def fill(stack: Stack) -> tuple[str, str, str, str]:
    """A job that has succeeded, one that runs, one that is paused, and one that waits."""
    done = stack.submit(2)
    stack.wait(done)
    running = stack.submit(20)
    stack.wait_for_step(running, 2)
    paused, queued = stack.submit(3), stack.submit(3)
    with stack.client() as client:
        client.jobs.at(paused).pause()
    stack.wait(paused, "paused")
    return done, running, paused, queued


def back_up(stack: Stack, work: Path) -> None:
    """As the manual of the previous release says."""
    dump = ("exec", "-T", "postgres", "pg_dump", "--username=finetuned", "--format=custom", "finetuned")
    stack.engine.save(work / "previous.dump", "docker", "compose", *dump, folder=stack.folder)
    pack = ("exec", "-T", "api", "sh", "-c", "cd /var/lib/finetuned && tar --create $(ls -d runs blobs 2>/dev/null)")
    stack.engine.save(work / "previous.tar", "docker", "compose", *pack, folder=stack.folder)


def go_back(previous: Stack, stack: Stack, work: Path) -> str:
    steps.clear(stack)
    previous.compose("up", "--detach", "--no-build")
    previous.wait_until_ready()
    previous.compose("stop", "worker")
    restore = ("exec", "-T", "postgres", "pg_restore", "--username=finetuned", "--dbname=finetuned", "--clean")
    previous.engine.load(work / "previous.dump", "docker", "compose", *restore, "--if-exists", folder=previous.folder)
    unpack = ("exec", "-T", "api", "tar", "--extract", "--directory=/var/lib/finetuned")
    previous.engine.load(work / "previous.tar", "docker", "compose", *unpack, folder=previous.folder)
    previous.compose("start", "worker")
    with previous.client() as client:
        jobs = {job.id: job.status for job in client.jobs.list()}
    assert sorted(jobs.values()).count("paused") == 1, jobs
    unfinished = [job for job, status in jobs.items() if status in ("running", "queued")]
    assert len(unfinished) == 2, jobs
    for job in unfinished:
        previous.wait(job)
    steps.clear(previous)
    return "the restored version ran on: the same four jobs, and those that were not finished succeeded"


def variable(stack: Stack, name: str) -> str:
    lines = (stack.folder / ".env").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))
