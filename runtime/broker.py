"""Wake-ups through the broker: "schedule" to any worker, "start this attempt" to one. The rows are the truth; a message
that is lost, late or repeated changes nothing but the time."""

from functools import partialmethod

from celery import Celery
from kombu import Connection, Queue

from runtime.settings import StoreSettings

SCHEDULE = "finetuned.schedule"
RUN_JOB = "finetuned.run_job"
QUEUE = "finetuned.jobs"


class _Connection(Connection):
    """Tries to reach the broker again every 5 s at most. Kombu's waits grow to half a minute, for which no job would
    begin after the broker is back; Celery has no setting for them."""

    ensure_connection = partialmethod(Connection.ensure_connection, interval_start=1, interval_step=1, interval_max=5)


def worker_queue(worker: str) -> str:
    return f"finetuned.worker.{worker}"


def make_celery(settings: StoreSettings, worker: str | None = None) -> Celery:
    """The Celery application; with `worker` it also reads the queue of that worker."""
    app = Celery("finetuned", broker=settings.broker_url.get_secret_value())
    read = [QUEUE, *([worker_queue(worker)] if worker else [])]
    app.conf.update(
        # A wake-up is gone once it is received. A late ack would start a second copy of an hours-long task after a
        # reconnect, and with any ack a worker that loses the broker before the ack ends: kombu tries to put the message
        # back through the connection that it has closed.
        task_queues=[Queue(name, no_ack=True) for name in read],
        task_default_queue=QUEUE,
        task_ignore_result=True,
        worker_disable_prefetch=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_connect_timeout": 2, "socket_timeout": 10},
    )
    app.amqp.Connection = _Connection
    return app


def make_publisher(settings: StoreSettings) -> Celery:
    """The Celery application of a process that only sends wake-ups while a request waits. It gives up on the broker
    within about a second; a consumer must not, because it would leave a broker that is only slow."""
    app = make_celery(settings)
    app.conf.broker_transport_options = {
        "socket_connect_timeout": 0.5,
        "socket_timeout": 0.5,
        # Kombu's own loop around the connection would otherwise go on for four seconds.
        "max_retries": 0,
    }
    return app


def request_scheduling(app: Celery) -> None:
    """Asks any worker to run the scheduler. Raises kombu.exceptions.OperationalError when the broker is unavailable."""
    app.send_task(SCHEDULE, queue=QUEUE, retry=False)


def request_start(app: Celery, worker: str, job_id: str, attempt: int) -> None:
    """Asks a worker to start its part of an attempt. Raises kombu.exceptions.OperationalError when the broker is
    unavailable."""
    app.send_task(RUN_JOB, args=[job_id, attempt], queue=worker_queue(worker), retry=False)


def ping(app: Celery) -> None:
    """Raises kombu.exceptions.OperationalError when the broker is unavailable."""
    with app.connection_for_write() as connection, connection._reraise_as_library_errors():
        connection.default_channel.client.ping()
