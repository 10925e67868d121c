"""`python -m worker`: runs jobs until it is told to stop; then those it runs save, and go back to the queue."""

from runtime import logs
from runtime.private_files import keep_private
from store.scheduling.planner import SHARERS
from store.session import make_engine, make_sessions
from worker.retry import persist
from worker.supervise.reconciler import forget_earlier
from worker.tasks import app, machine, settings


def main() -> None:
    keep_private(settings.home)
    logs.configure(settings)
    engine = make_engine(settings)
    what = f"worker {settings.worker}"
    persist(make_sessions(engine), what, lambda session: forget_earlier(session, settings.worker))
    engine.dispose()
    # A process for each job that its devices can have, and one that looks at the queue meanwhile.
    processes = SHARERS * machine.devices + 1
    app.worker_main(
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


if __name__ == "__main__":
    main()
