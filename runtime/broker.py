"""The broker, which carries wake-ups: "look at the queue" to any worker, "begin with what you were given" to one. The
truth is in the rows; a message that is lost, late or repeated changes nothing but the time."""

from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection, Queue

from runtime.settings import StoreSettings

LOOK = "finetuned.look"
RUN_JOB = "finetuned.run_job"
QUEUE = "finetuned.jobs"


_LONGEST_WAIT = 5
"""Seconds between two tries to reach the broker again."""


class _Connection(Connection):
    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """As kombu's, whose waits grow to half a minute: for so long after the broker is back nothing would begin."""
        waits = {"interval_start": 1, "interval_step": 1, "interval_max": _LONGEST_WAIT}
        return super().ensure_connection(*args, **{**waits, **options})


class _Amqp(AMQP):
    Connection = _Connection


def queue_of(worker: str) -> str:
    return f"finetuned.worker.{worker}"


def make_celery(settings: StoreSettings, worker: str | None = None) -> Celery:
    """`worker` also reads the queue of that name."""
    app = Celery("finetuned", broker=settings.broker_url.get_secret_value(), amqp=_Amqp)
    read = [QUEUE, *([queue_of(worker)] if worker else [])]
    app.conf.update(
        # A wake-up is gone once it is taken. A late ack starts a second copy of an hours-long task on a reconnect; and
        # with any ack a worker ends where it loses the broker just before that: kombu puts the message back by the
        # connection that it has closed.
        task_queues=[Queue(name, no_ack=True) for name in read],
        task_default_queue=QUEUE,
        task_ignore_result=True,
        worker_disable_prefetch=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_connect_timeout": 2, "socket_timeout": 10},
    )
    return app


def make_publisher(settings: StoreSettings) -> Celery:
    """For one that only sends wake-ups while somebody waits for it: it gives up on the broker within about a second.

    A consumer must not have this impatience: it would leave a broker that is merely slow.
    """
    app = make_celery(settings)
    app.conf.broker_transport_options = {
        "socket_connect_timeout": 0.5,
        "socket_timeout": 0.5,
        # Of kombu's own loop around the connection, which otherwise goes on for four seconds.
        "max_retries": 0,
    }
    return app


def look(app: Celery) -> None:
    """Tells the workers that a job waits. Raises kombu.exceptions.OperationalError when the broker is away."""
    app.send_task(LOOK, queue=QUEUE, retry=False)


def begin(app: Celery, worker: str, job_id: str, attempt: int) -> None:
    """Tells a worker that it was given devices for the job. Raises kombu.exceptions.OperationalError when the broker is
    away."""
    app.send_task(RUN_JOB, args=[job_id, attempt], queue=queue_of(worker), retry=False)


def ping(app: Celery) -> None:
    """Raises kombu.exceptions.OperationalError when the broker is away."""
    with app.connection_for_write() as connection, connection._reraise_as_library_errors():
        connection.default_channel.client.ping()
