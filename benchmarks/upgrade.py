"""How long an upgrade keeps the API away: `python -m benchmarks.upgrade` prints it; `--short` is for CI.

An embedded PostgreSQL gets the schema of the previous release and its rows: jobs, and metrics of some of them. Then the
migrations of this version run, and an API of this version starts until it answers, as `finetuned up` and
`docker compose up` do one after the other.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from benchmarks.many_metrics import insert_metrics
from contract.recipe import Recipe
from finetuned.stack import postgres, valkey
from store import schema
from tests.support import service

PREVIOUS = "20261130_store_names"
"""The schema of the release before."""
JOBS = sa.text(
    "INSERT INTO jobs (id, owner, recipe, status, attempt, retries, priority, event_count, finished_at) "
    "SELECT 'job_' || lpad(to_hex(n), 24, '0'), 'owner' || n % 20, CAST(:recipe AS json), 'succeeded', 1, 0, 0, 0, "
    "now() FROM generate_series(1, :jobs) n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a hundredth of the rows")
    jobs, with_metrics = (1_000, 100) if parser.parse_args().short else (100_000, 10_000)
    with tempfile.TemporaryDirectory(prefix="finetuned-benchmark-") as name:
        os.chmod(name, 0o755)
        folder = Path(name)
        (folder / "home" / "models").mkdir(parents=True)
        with postgres.running(folder / "postgres") as database_url, valkey.running(folder / "valkey") as broker_url:
            service.migrate(database_url, PREVIOUS)
            fill(database_url, jobs, with_metrics)
            print(f"{jobs:,} jobs and {with_metrics * 1000:,} metrics, from {PREVIOUS} to {schema.HEAD}", flush=True)
            began = time.monotonic()
            service.migrate(database_url, "head")
            migrated = time.monotonic()
            with service.running(folder / "home", database_url, broker_url, workers=()) as live:
                answered = time.monotonic()
                assert len(live.client.get("/jobs?limit=100").raise_for_status().json()["data"]) == 100
            print(f"migrations                    {migrated - began:6.1f} s")
            print(f"start of the API              {answered - migrated:6.1f} s")
            print(f"the API was away for          {answered - began:6.1f} s")


def fill(database_url: str, jobs: int, with_metrics: int) -> None:
    recipe = Recipe.model_validate({"model": "tiny", "dataset": "rows.jsonl"}).model_dump_json()
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(JOBS, {"recipe": recipe, "jobs": jobs})
        insert_metrics(connection, with_metrics, 1000)
    engine.dispose()


if __name__ == "__main__":
    main()
