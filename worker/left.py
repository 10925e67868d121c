"""Reads what an attempt has left in its run folder."""

import logging
import os
import shutil
from pathlib import Path

from pydantic import ValidationError

from contract.failure import Failure, FailureReason
from contract.receipt import Receipt
from contract.run_dir import RunDir

log = logging.getLogger(__name__)

LOG_TAIL = 8_000  # bytes kept in the row
_NO_ROOM = 1 << 20
"""Bytes that a disk has left, with which a trainer cannot tell why it failed, in its error.json or its log."""


def read_receipt(path: Path) -> Receipt | None:
    """As a guard has written it; None where it was killed itself."""
    try:
        return Receipt.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        log.warning("%s is torn: %s", path, error)
        return None


def read_log_tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL))
            # PostgreSQL's text holds no NUL.
            return file.read().decode(errors="replace").replace("\0", "\ufffd")
    except FileNotFoundError:
        return ""


def read_error(run_dir: RunDir) -> Failure | None:
    """What the trainer wrote of its failure; or that it had no room to, on a full disk. None where it wrote nothing, or
    was killed while it did."""
    try:
        return Failure.model_validate_json(run_dir.error.read_bytes())
    except FileNotFoundError:
        pass
    except ValidationError as error:
        log.warning("%s is torn: %s", run_dir.error, error)
    if run_dir.path.is_dir() and shutil.disk_usage(run_dir.path).free < _NO_ROOM:
        message = "the server's disk is full; the trainer had no room left to say what it was at"
        return Failure(reason=FailureReason.DISK_FULL, message=message)
    return None
