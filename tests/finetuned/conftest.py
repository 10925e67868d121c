import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """Like tmp_path, but every user may enter it."""
    with tempfile.TemporaryDirectory(prefix="finetuned-tests-") as name:
        os.chmod(name, 0o755)
        yield Path(name)
