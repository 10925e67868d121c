"""A backup and its restore: `python -m benchmarks.backup` prints their times; `--short` is for CI.

Jobs with published checkpoints, run folders and metrics are saved as `finetuned backup` does, and restored into an
empty database and home, whose rows and files are then compared with the old ones.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from benchmarks.many_metrics import insert_metrics
from contract.events import CheckpointEvent
from finetuned.stack import postgres
from store import artifacts
from store.session import Sessions, make_sessions
from tests.support.artifacts import publish
from tests.support.jobs import create_job
from tests.support.service import migrate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="5 jobs of 4 MB in place of 50 of 40 MB")
    jobs, megabytes = (5, 4) if parser.parse_args().short else (50, 40)
    with tempfile.TemporaryDirectory(prefix="finetuned-benchmark-") as name:
        os.chmod(name, 0o755)
        folder = Path(name)
        with postgres.running(folder / "postgres") as old_url:
            new_url = make_databases(old_url)
            home, new_home, archive = folder / "home", folder / "new", folder / "archive.tar"
            new_home.mkdir()
            add_jobs(make_sessions(sa.create_engine(old_url)), home, jobs, megabytes)
            with sa.create_engine(old_url).begin() as connection:
                insert_metrics(connection, jobs, 10_000)
            saved = finetuned("backup", archive, old_url, home)
            restored = finetuned("restore", archive, new_url, new_home)
            assert list(rows(old_url)) == list(rows(new_url)), "rows differ"
            assert digests(home) == digests(new_home), "files differ"
            print(f"{jobs} jobs, {archive.stat().st_size / 1e9:.2f} GB, {jobs * 10_000:,} metrics: no difference")
            print(f"finetuned backup        {saved:6.1f} s")
            print(f"finetuned restore       {restored:6.1f} s")


def make_databases(old_url: str) -> str:
    """Migrates the database, and makes an empty one beside it. Returns the URL of the empty one."""
    migrate(old_url)
    url = sa.make_url(old_url)
    with sa.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text("CREATE DATABASE other"))
    return url.set(database="other").render_as_string(hide_password=False)


def add_jobs(sessions: Sessions, home: Path, jobs: int, megabytes: int) -> None:
    """Half of each job's bytes are an artifact, and half are in its run folder alone."""
    half = megabytes * 500_000
    for _ in range(jobs):
        job_id = create_job(sessions)
        checkpoint = home / "runs" / job_id / "attempt-1" / "checkpoints" / "step-1"
        checkpoint.mkdir(parents=True)
        (checkpoint / "adapter_model.safetensors").write_bytes(os.urandom(half))
        (checkpoint.parent.parent / "optimizer.safetensors").write_bytes(os.urandom(half))
        event = CheckpointEvent(time=1, step=1, path="checkpoints/step-1", bytes=half, final=False, eval_loss=None)
        with sessions.begin() as session:
            artifacts.add_checkpoint(session, job_id, 1, event)
    publish(sessions, home)


def finetuned(command: str, archive: Path, database_url: str, home: Path) -> float:
    """The seconds that it takes."""
    environment = {**os.environ, "FINETUNED_DATABASE_URL": database_url, "FINETUNED_HOME": str(home)}
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "finetuned", command, str(archive)], env=environment, check=True)
    return time.monotonic() - began


def rows(database_url: str) -> Iterator[tuple[str, int, str | None]]:
    """Each table with the number of its rows and one digest of them all, in the order of their text."""
    with sa.create_engine(database_url).connect() as connection:
        names = connection.scalars(sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"))
        for name in names.all():
            texts = f"(SELECT CAST(t AS text) each FROM {name} t) texts"
            digest = sa.text(f"SELECT count(*), md5(string_agg(md5(each), '' ORDER BY each)) FROM {texts}")
            count, found = connection.execute(digest).one()
            yield name, count, found


def digests(home: Path) -> dict[Path, str]:
    files = (path for path in home.rglob("*") if path.is_file())
    return {path.relative_to(home): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main()
