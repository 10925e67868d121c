from pathlib import Path
from urllib.parse import unquote

import pytest
from kombu import Connection
from redis import Redis

from finetuned.stack import valkey


def test_the_broker_answers_and_forgets(folder: Path) -> None:
    for _ in range(2):
        with (
            valkey.running(folder) as url,
            Redis(unix_socket_path=unquote(url.removeprefix("redis+socket://"))) as redis,
        ):
            assert redis.get("word") is None
            redis.set("word", "kept in memory alone")


@pytest.mark.parametrize("name", ["plain", "with blanks, and a %", "d" * 120])
def test_its_url_is_one_that_celery_understands(folder: Path, name: str) -> None:
    with valkey.running(folder / name) as url, Connection(url) as connection, connection.SimpleQueue("q") as queue:
        queue.put({"hello": 1})
        assert queue.get(timeout=5).payload == {"hello": 1}
