from contextlib import suppress
from pathlib import Path

import pytest
from kombu.utils import functional
from pydantic import SecretStr

from runtime import broker
from runtime.settings import StoreSettings


def test_taken_wake_up_survives_a_lost_broker(broker_url: str, tmp_path: Path) -> None:
    settings = StoreSettings(database_url=SecretStr(""), broker_url=SecretStr(broker_url), home=tmp_path)
    app = broker.make_celery(settings, "w")
    with app.connection_for_write() as publishing:
        for queue in (broker.QUEUE, broker.worker_queue("w")):
            publishing.default_channel.queue_purge(queue)
        broker.request_start(app, "w", "job", 1)
    taken: list[object] = []
    with app.connection_for_read() as connection, app.amqp.TaskConsumer(connection) as consumer:
        consumer.on_message = taken.append
        while not taken:
            connection.drain_events(timeout=10)
    with app.connection_for_read() as connection:
        assert connection.default_channel.basic_get(broker.worker_queue("w")) is None


class Enough(Exception):
    pass


def test_unavailable_broker_is_retried_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "sleep", lambda seconds: None)
    url = SecretStr(f"redis+socket://{tmp_path}/none.sock")
    app = broker.make_celery(StoreSettings(database_url=SecretStr(""), broker_url=url, home=tmp_path))
    waits: list[float] = []

    def note(error: Exception, wait: float) -> None:
        waits.append(wait)
        if len(waits) > 150:
            raise Enough

    with suppress(Enough), app.connection_for_read() as connection:
        # As Celery's consumer asks it.
        connection.ensure_connection(note, app.conf.broker_connection_max_retries)
    assert len(waits) == 151
    assert max(waits) == 5
