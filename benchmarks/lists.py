"""How long every list takes with many finished jobs: `python -m benchmarks.lists --jobs 30000` prints it.

One API process and PostgreSQL on this machine; the database has so many jobs, datasets, keys and so on. Each list is
read a few times, without parameters; the median and the longest are printed. `--jobs 1000 --rounds 3` is a short form.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import sqlalchemy as sa

from benchmarks.api_load import serving
from finetuned.stack import postgres, valkey
from tests import many_jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetuned-benchmark-") as name:
        os.chmod(name, 0o755)
        folder = Path(name)
        with postgres.running(folder / "postgres") as database_url, valkey.running(folder / "valkey") as broker_url:
            environment = {
                **os.environ,
                "FINETUNED_DATABASE_URL": database_url,
                "FINETUNED_BROKER_URL": broker_url,
                "FINETUNED_HOME": str(folder / "home"),
            }
            subprocess.run([sys.executable, "-m", "migrations"], env=environment, check=True)
            engine = sa.create_engine(database_url)
            many_jobs.fill(engine, arguments.jobs)
            engine.dispose()
            with serving(["-m", "api"], environment, "/health") as port:
                measure(port, arguments.rounds)


def measure(port: int, rounds: int) -> None:
    print("    median    longest      bytes  list")
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        for path in many_jobs.lists(client.get("/openapi.json").json()):
            times = []
            for _ in range(rounds):
                began = time.perf_counter()
                answer = client.get(path, headers={"accept": "application/json"}).raise_for_status()
                times.append(1000 * (time.perf_counter() - began))
            print(f"{statistics.median(times):7.0f} ms {max(times):7.0f} ms {len(answer.content):10}  {path}")


if __name__ == "__main__":
    main()
