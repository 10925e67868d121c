"""Real servers for all tests: PostgreSQL with the migrated schema, and Valkey, each started once."""

import gc
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import sqlalchemy as sa

from finetuned.stack import postgres, valkey
from store.session import Sessions, make_sessions
from tests.support.chromium import CHROMIUM, NO_CHROMIUM
from tests.support.database import empty_database, relax_durability
from tests.support.service import Service, migrate
from tests.support.slurm import HAS_SLURM, NO_SLURM, SlurmCluster, running_cluster

# hypothesis draws others at each run, so that fewer of them find as much in a few days; --hypothesis-profile=many draws
# more. A busy machine draws slowly, and so does one that measures coverage: no example has a deadline.
SLOW = [hypothesis.HealthCheck.too_slow]
for profile, most in {"few": 15, "many": 60}.items():
    hypothesis.settings.register_profile(profile, max_examples=most, deadline=None, suppress_health_check=SLOW)
hypothesis.settings.load_profile("few")


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """pytest's own folders are closed to the user that PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="finetuned-tests-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def database_url(servers_folder: Path) -> Iterator[str]:
    with postgres.running(servers_folder / "postgres") as url:
        migrate(url)
        relax_durability(url)
        yield url


@pytest.fixture(scope="session")
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url, pool_size=20)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: sa.Engine) -> Sessions:
    """The database, empty."""
    empty_database(engine)
    return make_sessions(engine)


@pytest.fixture(scope="session")
def broker_url(servers_folder: Path) -> Iterator[str]:
    with valkey.running(servers_folder / "valkey") as url:
        yield url


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    with running_cluster() as cluster:
        yield cluster


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", metavar="K/N", help="of the files that are chosen, every Nth, beginning with the Kth")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Without searches for garbage: the modules and the tests stay until the end. No later search looks at them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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
    """The slow ones first, so that no process is left alone with one of them at the end. Without a GPU, a browser,
    vLLM or Slurm, none that needs one; the exhaustive ones and those of the deployment only where -m names them. With
    --part, some of their files."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    on_cluster = [item for item in items if "cluster" in getattr(item, "fixturenames", ())]
    if on_cluster and not HAS_SLURM:
        config.hook.pytest_deselected(items=on_cluster)
        items[:] = [item for item in items if item not in on_cluster]
    in_browser = [item for item in items if "browser" in getattr(item, "fixturenames", ())]
    if in_browser and CHROMIUM is None:
        config.hook.pytest_deselected(items=in_browser)
        items[:] = [item for item in items if item not in in_browser]
    on_vllm = [item for item in items if "real_vllm" in getattr(item, "fixturenames", ())]
    if on_vllm and shutil.which("vllm") is None:
        config.hook.pytest_deselected(items=on_vllm)
        items[:] = [item for item in items if item not in on_vllm]
    for mark in ("exhaustive", "deploy"):
        if mark not in config.option.markexpr:
            more = [item for item in items if item.get_closest_marker(mark) is not None]
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if CHROMIUM is None:
        terminalreporter.line(NO_CHROMIUM, yellow=True)
    if not HAS_SLURM:
        terminalreporter.line(NO_SLURM, yellow=True)


def _has_gpu() -> bool:
    import torch  # Takes seconds, which most runs of some tests do without.

    return torch.cuda.is_available()
