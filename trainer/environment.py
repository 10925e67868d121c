"""Prepares the process before torch and PEFT are imported. Every command that imports them calls this first."""

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator


def prepare_process() -> None:
    # OpenMP reads this when torch loads: how long a thread spins before it sleeps. The default is far too long if
    # another process needs the same cores (steps took ten times as long). Without spinning, steps are a third slower
    # on idle cores.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # `kernels` downloads compiled code from the hub, and bitsandbytes, which PEFT imports, would use it. None is run.
    hide_package("kernels")
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_not_about_kernels)


def hide_package(name: str) -> None:
    """Makes later imports of a package fail, as if it were not installed."""
    sys.modules[name] = None  # type: ignore[assignment]


@contextlib.contextmanager
def lasting_imports() -> Iterator[None]:
    """Imports without searches for garbage, and leaves what they created out of all later searches.

    torch, transformers and PEFT create 650,000 objects, nearly all of which live as long as the process. Python would
    search them a thousand times meanwhile: a sixth of the imports' CPU time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _is_not_about_kernels(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward from kernels-community")
