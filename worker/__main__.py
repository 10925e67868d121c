"""`python -m worker`: runs jobs until a signal stops it. Running jobs then save and go back to the queue."""

import logging
import os
import shutil
import sys
from collections.abc import Mapping

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from runtime import logs
from runtime.private_files import keep_private
from runtime.retry import until_available
from runtime.settings import read_settings
from store import schema
from store.scheduling.situation import SHARERS
from store.session import make_engine, make_sessions
from worker.launchers.profiles import Profile
from worker.launchers.slurm_commands import PROGRAMS
from worker.settings import WorkerSettings
from worker.supervise.reconciler import release_earlier
from worker.tasks import CeleryWorker
from worker.transaction import run_transaction

log = logging.getLogger(__name__)


def main() -> None:
    settings = read_settings(WorkerSettings)
    keep_private(settings.home)
    logs.configure(settings)
    if (problem := settings.inference_problem) is not None:
        log.warning(problem)
    if (problem := _problem_of(settings.profiles)) is not None:
        sys.exit(f"FINETUNED_PROFILES: {problem}")
    _prepare(settings)
    worker = CeleryWorker(settings)
    worker.connect_signals()
    # A process for each job that the devices can run at once, and one that schedules meanwhile.
    processes = (1 if settings.profiles else SHARERS) * worker.machine.devices + 1
    worker.app.worker_main(
        [
            "--quiet",  # no banner between the lines of the log
            "worker",
            "--pool=prefork",
            f"--concurrency={processes}",
            f"--hostname=worker@{settings.worker}",
            "--loglevel=INFO",
            "--without-gossip",
            "--without-mingle",
        ]
    )


def _problem_of(profiles: Mapping[str, Profile]) -> str | None:
    """Why this process cannot hand jobs to the profiles' clusters."""
    kinds = {profile.launcher for profile in profiles.values()}
    if "slurm" in kinds and (missing := [name for name in PROGRAMS if shutil.which(name) is None]):
        return f"PATH has no {', '.join(missing)}; run the worker where jobs are submitted"
    if "kubernetes" in kinds and os.getuid() == 0:
        return "pods run as the worker's user, and not as root; run the worker as another user"
    return None


def _prepare(settings: WorkerSettings) -> None:
    """Waits for the database. Exits with 1 on one of another version."""
    engine = make_engine(settings)
    until_available("the start", OperationalError)(_refuse_another_schema, engine)
    what = f"worker {settings.worker}"
    run_transaction(make_sessions(engine), what, lambda session: release_earlier(session, settings.worker))
    engine.dispose()


def _refuse_another_schema(engine: Engine) -> None:
    if (problem := schema.refusal(engine)) is not None:
        sys.exit(problem)


if __name__ == "__main__":
    main()
