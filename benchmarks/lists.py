"""How long every list takes with many finished jobs: `python -m benchmarks.lists --jobs 30000` prints it.

One API process and PostgreSQL on this machine; the database has so many jobs, datasets, keys and so on. Each list is
read a few times, without parameters; the median and the longest are printed. `--short` is for CI.
"""

import argparse
import statistics
import time

import httpx
import sqlalchemy as sa

from benchmarks.servers import running_servers, serving
from tests.support import many_jobs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lists", description="Time every list.")
    parser.add_argument("--jobs", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--short", action="store_true", help="1,000 jobs, 3 rounds")
    options = parser.parse_args()
    with running_servers() as servers:
        engine = sa.create_engine(servers.database_url)
        many_jobs.fill(engine, 1_000 if options.short else options.jobs)
        engine.dispose()
        with serving(["-m", "api"], servers.environment, "/health") as port:
            measure(port, 3 if options.short else options.rounds)


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
