"""One deployment of a checkout by Compose, on an engine."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from finetuned import Client
from finetuned.errors import Refused, Unreachable
from tests.deploy.engine import Engine

URL = "http://127.0.0.1:8000"
TERMINAL = {"succeeded", "failed", "cancelled"}


class Stack:
    def __init__(self, engine: Engine, folder: Path, key: str = "") -> None:
        self.engine, self.folder = engine, folder
        self.key = key

    def compose(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.engine.run("docker", "compose", *words, folder=self.folder, check=check)

    def set_variables(self, **variables: str) -> None:
        """Sets variables in .env."""
        file = self.folder / ".env"
        text = file.read_text()
        for name, value in variables.items():
            text = re.sub(rf"^#?{name}=.*\n", "", text, flags=re.MULTILINE) + f"{name}={value}\n"
        file.write_text(text)

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text()

    def sql(self, query: str) -> str:
        psql = ("exec", "-T", "postgres", "psql", "--username=finetuned", "--no-align", "--tuples-only")
        return self.compose(*psql, f"--command={query}").stdout.strip()

    def client(self) -> Client:
        return Client(URL, key=self.key)

    def container(self, service: str) -> dict[str, Any]:
        """What Docker knows of a service's container."""
        name = self.compose("ps", "--all", "--quiet", service).stdout.strip()
        return dict(json.loads(self.engine.run("docker", "inspect", name).stdout)[0])

    def wait_until_ready(self, seconds: float = 300) -> None:
        """Until the API answers and a worker is there."""

        def ready() -> bool:
            try:
                return httpx.get(f"{URL}/health/ready", timeout=5, trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        self.until(ready, seconds, "the service is ready")

    def submit(self, steps: int, dataset: str = "quickstart.jsonl", **recipe: Any) -> str:
        with self.client() as client:
            batch = {"micro_batch_size": 1, "gradient_accumulation_steps": 1, "max_length": 64}
            schedule = {"max_steps": steps}
            body = {"model": "smollm2-135m-instruct", "dataset": dataset, "batch": batch, "schedule": schedule}
            return str(client.jobs.create({**body, **recipe}).id)

    def job(self, job_id: str) -> dict[str, Any]:
        """The job, once the service answers."""
        found: dict[str, Any] = {}

        def answers() -> bool:
            nonlocal found
            try:
                with self.client() as client:
                    found = client.jobs.get(job_id).raw
            except (Refused, Unreachable):  # while a part of it is away
                return False
            return True

        self.until(answers, 180, "the API answers")
        return found

    def wait_for_step(self, job_id: str, step: int, seconds: float = 600) -> None:
        def there() -> bool:
            job = self.job(job_id)
            assert job["status"] not in TERMINAL, f"ended as {job}"
            return ((job["progress"] or {}).get("step") or 0) >= step

        self.until(there, seconds, f"{job_id} is at step {step}")

    def wait(self, job_id: str, status: str = "succeeded", seconds: float = 1200) -> dict[str, Any]:
        """The job, once it has this status."""

        def there() -> bool:
            found = self.job(job_id)
            assert found["status"] == status or found["status"] not in TERMINAL, f"ended as {found}"
            return bool(found["status"] == status)

        self.until(there, seconds, f"{job_id} is {status}")
        return self.job(job_id)

    def check_steps(self, job_id: str, steps: int) -> None:
        """Whether the job has a metric of every step, once."""
        with self.client() as client:
            found = client.jobs.at(job_id).metrics()["step"]
        assert found == list(range(1, steps + 1)), found

    def until(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                logs = self.compose("logs", "--tail=30", check=False).stdout
                raise RuntimeError(f"not within {seconds} s: {what}\n{logs}")
            time.sleep(0.5)


def copy_checkout(root: Path, to: Path) -> None:
    """Copies the files that git knows or would add, so that .env and secrets/ are written beside the copy alone."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    listed = subprocess.check_output(
        ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    )
    names = b"\0".join(name for name in listed.split(b"\0") if (root / name.decode()).is_file())
    packed = ["tar", "-C", str(root), "--null", "--files-from=-", "--create"]
    tar = subprocess.run(packed, input=names, stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-C", str(to), "--extract"], input=tar.stdout, check=True)
