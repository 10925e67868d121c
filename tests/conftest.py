"""Real servers for all tests: PostgreSQL with the migrated schema, and Valkey, each started once."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from finetuned.stack import postgres, valkey
from store.models import Base
from store.session import Sessions, make_sessions
from tests.service import Service


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """pytest's own folders are closed to the user that PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="finetuned-tests-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def database_url(servers_folder: Path) -> Iterator[str]:
    with postgres.running(servers_folder / "postgres") as url:
        environment = {**os.environ, "FINETUNED_DATABASE_URL": url}
        subprocess.run([sys.executable, "-m", "migrations"], env=environment, check=True)
        yield url


@pytest.fixture(scope="session")
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url, pool_size=20)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: sa.Engine) -> Sessions:
    """The database, empty."""
    empty(engine)
    return make_sessions(engine)


def empty(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        # The audit refuses to be emptied, of everybody. A superuser, which the tests are, may put triggers aside.
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
        connection.execute(sa.text(f"TRUNCATE {tables}"))


@pytest.fixture(scope="session")
def broker_url(servers_folder: Path) -> Iterator[str]:
    with valkey.running(servers_folder / "valkey") as url:
        yield url


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="K/N", help="of the files that are chosen, every Nth, beginning with the Kth")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails on a service that others use after it leaves nothing behind."""
    report = yield
    live = item.funcargs.get("live")
    if report.failed and isinstance(live, Service):
        live.recover()
    return report


@pytest.hookimpl(trylast=True)  # after -m and -k have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The fast ones first: most faults show in the first minute. Without a GPU, none that needs one; and those that
    are exhaustive where -m asks for them. With --part, some of their files."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    if "exhaustive" not in config.option.markexpr:
        more = [item for item in items if item.get_closest_marker("exhaustive") is not None]
        config.hook.pytest_deselected(items=more)
        items[:] = [item for item in items if item not in more]
    for_gpu = [item for item in items if item.get_closest_marker("gpu") is not None]
    if for_gpu and not _has_gpu():
        config.hook.pytest_deselected(items=for_gpu)
        items[:] = [item for item in items if item not in for_gpu]
    if config.option.part is not None:
        part, parts = map(int, config.option.part.split("/"))
        chosen = set(sorted({item.path for item in items})[part % parts :: parts])
        config.hook.pytest_deselected(items=[item for item in items if item.path not in chosen])
        items[:] = [item for item in items if item.path in chosen]


def _has_gpu() -> bool:
    import torch  # Takes seconds, which most runs of some tests do without.

    return torch.cuda.is_available()
