import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.finetuned import fake_api
from tests.finetuned.fake_api import FakeApi


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Like tmp_path, but every user may enter it, and one for a whole file of tests: a first start takes its time."""
    with tempfile.TemporaryDirectory(prefix="finetuned-tests-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api.running() as running:
        yield running
