"""A real server that speaks S3's language, on the loopback: moto's, as a process."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

BUCKET = "our-bucket"
SECRET = "the-buckets-s3cret"
RELAY = Path(__file__).with_name("relay.py")


def environment(port: int) -> dict[str, str]:
    """That a program needs to reach the bucket."""
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }


@contextmanager
def running_s3(port: int) -> Iterator[str]:
    """Its address, with the bucket made. What it keeps is gone with it."""
    url = f"http://127.0.0.1:{port}"
    with process("moto.server", "--host", "127.0.0.1", "--port", str(port)) as server:
        make_bucket(server, url)
        yield url


@contextmanager
def unreachable_s3(socket: Path) -> Iterator[None]:
    """One that nobody reaches but by `reachable_s3`. It keeps its objects between two of these."""
    with process("moto.server", "--host", f"unix://{socket}"):
        yield


@contextmanager
def reachable_s3(socket: Path, port: int) -> Iterator[str]:
    """The address at which the server behind the socket is reached meanwhile."""
    url = f"http://127.0.0.1:{port}"
    with process(str(RELAY), f"127.0.0.1:{port}={socket}") as relay:
        make_bucket(relay, url)
        yield url


@contextmanager
def process(program: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    run = [program] if program.endswith(".py") else ["-m", program]
    started = subprocess.Popen([sys.executable, *run, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


def make_bucket(server: subprocess.Popen[bytes], url: str) -> None:
    """Makes it as soon as the server answers; one that is there stays as it is."""
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.put(f"{url}/{BUCKET}", timeout=10).raise_for_status()
            return
        except httpx.TransportError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
