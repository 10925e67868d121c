"""Many short jobs under random kills: `python -m benchmarks.soak --jobs 500 --workers 4 --seed 1` prints the ledger.

Everything is real, PostgreSQL, Valkey, the API, Celery and its workers, on servers of its own; only the trainer is a
fake, which takes a second or two for each job. The seed says what the jobs are and what is struck when; what a strike
then finds is the machine's. Exits with 1 where the ledger is not whole, and leaves the folder with all logs then.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.soak.run import soak
from tests.support.slurm import HAS_SLURM, NO_SLURM


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slurm", action="store_true", help="the workers hand their jobs to a Slurm of two nodes")
    parser.add_argument("--short", action="store_true", help="15 jobs, and then 12 on a Slurm where there is one")
    options = parser.parse_args()
    if options.short:
        _soak(15, options.workers, options.seed, on_cluster=False)
        if HAS_SLURM:
            _soak(12, 2, options.seed, on_cluster=True)
        else:
            print(NO_SLURM)
    else:
        _soak(options.jobs, options.workers, options.seed, on_cluster=options.slurm)


def _soak(jobs: int, workers: int, seed: int, *, on_cluster: bool) -> None:
    folder = Path(tempfile.mkdtemp(prefix="finetuned-soak-"))
    os.chmod(folder, 0o755)
    ledger = soak(folder, jobs, workers, seed, on_cluster=on_cluster)
    where = " on a Slurm of two nodes" if on_cluster else ""
    print(f"{jobs} jobs, {workers} workers, seed {seed}{where}\n\n{ledger}\n")
    if not ledger.is_whole:
        sys.exit(f"the ledger is not whole; the logs are in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
