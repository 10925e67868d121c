"""`python -m worker`: runs jobs until it is told to stop; then those it runs save, and go back to the queue."""

import socket

from worker.tasks import app, settings


def main() -> None:
    app.worker_main(
        [
            "worker",
            "--pool=prefork",
            f"--concurrency={settings.slots}",
            f"--hostname=worker@{socket.gethostname()}",
            "--loglevel=INFO",
            "--without-gossip",
            "--without-mingle",
        ]
    )


if __name__ == "__main__":
    main()
