"""Files that are whole or absent: written beside, then renamed. A power cut may lose one; the trainer, whose training
checkpoints must outlive that, flushes its own to disk (trainer/durable.py)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `target` once the context ends without an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.urandom(6).hex()}.partial")
    try:
        yield beside
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
