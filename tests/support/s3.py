"""A real server that speaks S3's language, on the loopback: moto's, as a process."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

BUCKET = "our-bucket"
SECRET = "the-buckets-s3cret"


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
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.put(f"{url}/{BUCKET}", timeout=10).raise_for_status()
                break
            except httpx.TransportError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()
