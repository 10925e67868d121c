"""`python -m worker`: runs jobs until it is told to stop; then those it runs save, and go back to the queue."""

from store.plan import SHARERS
from worker.tasks import app, machine, settings


def main() -> None:
    # A process for each job that its devices can have, and one that looks at the queue meanwhile.
    processes = SHARERS * machine.devices + 1
    app.worker_main(
        [
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
