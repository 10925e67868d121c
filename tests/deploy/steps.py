"""What is done with a deployment, step by step. Each returns its result in words."""

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import httpx

from tests.deploy.stack import URL, Stack

STUBBORN = "\"sh -c 'trap : TERM; while :; do sleep 1; done'\""
SERVICES = ("api", "valkey", "postgres", "worker")


def prepare(stack: Stack, data: Path, overlays: str) -> None:
    """Writes .env and secrets/, for a machine without a GPU."""
    subprocess.run([stack.folder / "docker/init"], check=True, stdout=subprocess.DEVNULL)
    # Without an index of PyTorch's: the base image has the wheel.
    stack.set_variables(DATA_FOLDER=str(data), COMPOSE_FILE=overlays, COMPOSE_PROJECT_NAME="finetuned", TORCH_INDEX="")
    # What an interrupted run has left has other passwords.
    clear(stack)


def clear(stack: Stack) -> None:
    stack.compose("--profile=*", "down", "--volumes")
    # The previous release's Valkey leaves a volume without a name at every `down`.
    stack.engine.run("docker", "volume", "prune", "--force")


def build(stack: Stack) -> str:
    stack.compose("build", "--quiet")
    sizes = []
    for image, part in (("finetuned-api", "API"), ("finetuned-worker-cpu", "worker without CUDA")):
        used = stack.engine.run("docker", "run", "--rm", "--entrypoint=du", f"{image}:0.1.0", "-sm", "/opt/finetuned")
        sizes.append(f"{part} {used.stdout.split()[0]} MB")
    return " and ".join(sizes) + " on top of Python's image"


def start(stack: Stack) -> str:
    began = time.monotonic()
    stack.compose("up", "--detach")
    stack.wait_until_ready()
    ready = time.monotonic() - began
    stack.compose("up", "--detach", "--wait")
    return f"ready after {ready:.1f} s, all containers healthy"


def make_keys(stack: Stack) -> str:
    assert httpx.get(f"{URL}/jobs", trust_env=False).status_code == 401
    first = ("exec", "-T", "api", "python", "-m", "api.first_key")
    admin = stack.compose(*first).stdout.strip()
    assert admin.startswith("sk-ft-")
    again = stack.compose(*first, check=False)
    assert again.returncode != 0
    assert "sk-ft-" not in again.stdout
    create = ("finetuned", "keys", "create", "--owner=anna")
    stack.key = stack.compose("exec", "-T", "-e", f"FINETUNED_API_KEY={admin}", "api", *create).stdout.strip()
    with stack.client() as client:
        assert list(client.jobs.list()) == []
    return "401 without a key; the first key is printed once; with it one for anna"


def train(stack: Stack) -> str:
    job = stack.submit(6)
    stack.wait(job)
    with tempfile.TemporaryDirectory() as folder, stack.client() as client:
        adapter = client.jobs.at(job).download(Path(folder) / "adapter")
        names = {file.name for file in adapter.iterdir()}
        assert {"adapter_config.json", "adapter_model.safetensors"} <= names, names
    return "a job of 6 steps has succeeded, its adapter is downloaded"


def train_an_upload(stack: Stack, data: Path) -> str:
    with stack.client() as client:
        uploaded = client.datasets.upload(data / "datasets/quickstart.jsonl").wait()
    stack.wait(stack.submit(2, dataset=uploaded.id))
    return "a job on an uploaded dataset has succeeded"


def restart_everything(stack: Stack) -> str:
    job = stack.submit(25)
    stack.wait_for_step(job, 3)
    for service in SERVICES:
        stack.compose("restart", service)
        stack.wait_until_ready()
    stack.compose("kill", "worker")
    stack.compose("start", "worker")
    done = stack.wait(job)
    stack.check_steps(job, 25)
    return f"restart of each, kill of the worker: succeeded at attempt {done['attempt']}, every step once"


def kill_everything(stack: Stack) -> str:
    job = stack.submit(20)
    stack.wait_for_step(job, 3)
    pids = [str(stack.container(service)["State"]["Pid"]) for service in SERVICES]
    stack.engine.run("kill", "-KILL", *pids)
    stack.wait_until_ready()
    done = stack.wait(job)
    stack.check_steps(job, 20)
    return f"kill -9 of all at once: restarted by themselves, succeeded at attempt {done['attempt']}"


def stop_a_stubborn_trainer(stack: Stack) -> str:
    stack.set_variables(FINETUNED_TRAINER=STUBBORN)
    stack.compose("up", "--detach", "worker")
    stack.wait_until_ready()
    job = stack.submit(5)
    stack.wait(job, "running")
    began = time.monotonic()
    stack.compose("stop", "worker")
    seconds = time.monotonic() - began
    state = stack.container("worker")["State"]
    assert (state["ExitCode"], stack.job(job)["status"]) == (0, "queued"), (state, stack.job(job))
    stack.set_variables(FINETUNED_TRAINER='"python -m trainer"')
    stack.compose("up", "--detach", "worker")
    stack.wait(job)
    return f"a trainer that ignores SIGTERM: stopped after {seconds:.0f} s with exit code 0, the job then succeeded"


def take_down_and_up(stack: Stack) -> str:
    job = stack.submit(15)
    stack.wait_for_step(job, 3)
    began = time.monotonic()
    stack.compose("down")
    seconds = time.monotonic() - began
    stack.compose("up", "--detach")
    stack.wait(job)
    stack.check_steps(job, 15)
    return f"down took {seconds:.1f} s, after up the job succeeded, every step once"


def stop_the_engine(stack: Stack) -> str:
    job = stack.submit(20)
    stack.wait_for_step(job, 3)
    began = time.monotonic()
    stack.engine.stop()
    seconds = time.monotonic() - began
    assert seconds < 30, f"the engine took {seconds:.1f} s to stop"
    stack.engine.start()
    stack.wait_until_ready()
    done = stack.wait(job)
    stack.check_steps(job, 20)
    again = f"attempt {done['attempt']}, retries {done['retries']}"
    return f"the engine stopped within {seconds:.1f} s; after its start the job succeeded, every step once ({again})"


def restore_a_backup(stack: Stack, work: Path) -> str:
    """Needs a service without running jobs."""
    # Each minute a worker measures what jobs have left, and writes it into their rows.
    stack.compose("stop", "worker")
    before = everything(stack)
    archive = work / "backup.tar"
    stack.engine.save(
        archive, "docker", "compose", "exec", "-T", "api", "finetuned", "backup", "-", folder=stack.folder
    )
    stack.compose("down", "--volumes")
    began = time.monotonic()
    stack.compose("up", "--detach", "--wait", "postgres")
    restore = ("run", "--rm", "--no-deps", "-T", "api", "finetuned", "restore", "-")
    stack.engine.load(archive, "docker", "compose", *restore, folder=stack.folder)
    seconds = time.monotonic() - began
    stack.compose("up", "--detach", "--wait", "api")
    after = everything(stack)
    differ = [name for name in before if after.get(name) != before[name]]
    assert not differ, f"other than before: {', '.join(differ)}"
    stack.compose("up", "--detach")
    stack.wait_until_ready()
    megabytes = archive.stat().st_size / 1e6
    archive.unlink()
    return f"{megabytes:.0f} MB restored in {seconds:.0f} s after down --volumes, every row and digest as before"


def everything(stack: Stack) -> dict[str, str]:
    """A digest of all rows of every table, and of all files of runs and datasets."""
    tables = stack.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").split()
    # Workers and their devices come and go with the containers.
    rows = {
        table: stack.sql(f"SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM {table} t")
        for table in tables
        if table not in ("workers", "devices", "leases")
    }
    listed = "cd /var/lib/finetuned && find runs blobs -type f ! -name '*.lock' -exec sha256sum {} + | sort"
    return {**rows, "files": stack.compose("exec", "-T", "api", "sh", "-c", listed).stdout}


def serve_https(stack: Stack) -> str:
    stack.set_variables(TLS_NAME="localhost", TLS_CERTIFICATE="internal")
    stack.compose("--profile=tls", "up", "--detach", "caddy")
    authority = "/data/caddy/pki/authorities/local/root.crt"
    stack.until(
        lambda: stack.compose("--profile=tls", "exec", "-T", "caddy", "cat", authority, check=False).returncode == 0,
        30,
        "CA",
    )
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(stack.compose("--profile=tls", "exec", "-T", "caddy", "cat", authority).stdout)
        file.flush()
        job = stack.submit(5)
        headers = {"authorization": f"Bearer {stack.key}"}
        with httpx.Client(base_url="https://localhost", verify=file.name, headers=headers, trust_env=False) as client:
            seen = [time.monotonic()]
            with client.stream("GET", f"/jobs/{job}/events", timeout=300) as stream:
                seen += [time.monotonic() for line in stream.iter_lines() if line.startswith("event: ")]
    assert seen[-1] - seen[1] > 1, "the events came all at once"
    stack.compose("--profile=tls", "rm", "--stop", "--force", "caddy")
    return f"{len(seen) - 1} events of a running job, one by one"


def watch(stack: Stack) -> str:
    stack.compose("--profile=monitoring", "up", "--detach", "--no-deps", "prometheus")
    query = ("exec", "-T", "prometheus", "promtool", "query", "instant", "http://localhost:9090")

    def scraped() -> bool:
        answer = stack.compose("--profile=monitoring", *query, 'up{job="finetuned"}', check=False).stdout
        return "=> 1" in answer

    stack.until(scraped, 60, "Prometheus has read the API's metrics")
    stack.compose("--profile=monitoring", "rm", "--stop", "--force", "prometheus")
    return "Prometheus reads the API's metrics"


def install_a_bundle(stack: Stack, work: Path) -> str:
    """Replaces the stack by what one file has, without a registry or a build."""
    bundle = work / "bundle.tar"
    bundle.unlink(missing_ok=True)
    shutil.rmtree(work / "bundle", ignore_errors=True)
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message=release")):
        stack.engine.run(*git, *words, folder=stack.folder)
    stack.engine.run("scripts/bundle", str(bundle), "images", folder=stack.folder)
    stack.compose("down")
    images = sorted(set(stack.compose("config", "--images").stdout.split()))  # two services share one
    stack.engine.run("docker", "image", "rm", *images)
    subprocess.run(["tar", "--extract", "--file", bundle, "--one-top-level", "--directory", work], check=True)
    (unpacked,) = (work / "bundle").iterdir()
    subprocess.run(
        ["cp", "--recursive", "--preserve", stack.folder / ".env", stack.folder / "secrets", unpacked], check=True
    )
    stack.engine.run("docker", "image", "load", "--input", "offline/images.tar", folder=unpacked)
    there = Stack(stack.engine, unpacked, stack.key)
    there.compose("up", "--detach", "--no-build")
    there.wait_until_ready()
    there.wait(there.submit(2))
    megabytes = bundle.stat().st_size / 1e6
    there.compose("down")
    stack.compose("up", "--detach", "--no-build")
    stack.wait_until_ready()
    bundle.unlink()
    shutil.rmtree(work / "bundle")
    return f"one file of {megabytes:.0f} MB; the images removed, loaded from it, and a job has succeeded"


def remove(stack: Stack) -> str:
    stack.compose("--profile=*", "down", "--volumes")
    left = stack.engine.run("docker", "volume", "ls", "--quiet").stdout.split()
    assert left == [], left
    running = json.loads(stack.engine.run("docker", "ps", "--all", "--format=json").stdout or "null")
    assert running is None, running
    return "no volume and no container is left"
