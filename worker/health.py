"""`python -m worker.health`: exits with 0 if the worker of these settings works, and else says what is wrong.

It works if it sent a heartbeat lately, for which the database and its main process are needed, and the broker answers.
It is for a container's health check: a worker that cannot reach its broker at its start sends no heartbeat.
"""

import sys
from datetime import timedelta

from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from runtime import broker
from runtime.settings import read_settings
from store.scheduling import workers
from store.session import make_engine, make_sessions
from worker.settings import WorkerSettings

LONGEST_SILENCE = timedelta(seconds=30)


def main() -> None:
    sys.exit(problem(read_settings(WorkerSettings)))


def problem(settings: WorkerSettings) -> str | None:
    """What is wrong with the worker; None if nothing is."""
    engine = make_engine(settings)
    try:
        with make_sessions(engine).begin() as session:
            heard = workers.was_heard(session, settings.worker, LONGEST_SILENCE)
    except SQLAlchemyError as error:
        return f"the database does not answer: {str(error).splitlines()[0]}"
    finally:
        engine.dispose()
    if not heard:
        return f"worker {settings.worker} sent no heartbeat for {LONGEST_SILENCE.seconds} s; its log says why"
    try:
        broker.ping(broker.make_publisher(settings))
    except OperationalError as error:
        return f"the broker does not answer: {error}"
    return None


if __name__ == "__main__":
    main()
