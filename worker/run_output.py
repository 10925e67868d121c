"""Reads what an attempt has left in its run folder. A trainer has tokens of its user, and libraries that may tell them:
what it says is for others once it is without them."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from contract.exit_report import ExitReport
from contract.failure import Failure, FailureCode
from contract.run_dir import RunDir
from runtime.logs import without_secrets
from storage.backends import replacing

log = logging.getLogger(__name__)

LOG_TAIL = 8_000  # bytes kept in the row
_NO_ROOM = 1 << 20
"""Bytes that a disk has left, with which a trainer cannot tell why it failed, in its error.json or its log."""
_LONGEST_LINE = 1 << 20
"""Characters of a log that are looked at together."""


def read_exit_report(path: Path) -> ExitReport | None:
    """As a guard has written it; None where it was killed itself."""
    try:
        return ExitReport.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        log.warning("%s is torn: %s", path, error)
        return None


def read_log_tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - LOG_TAIL)
            file.seek(start)
            tail = file.read()
    except FileNotFoundError:
        return ""
    if start:
        # Of a line that is cut nobody knows a secret by what is left of it.
        tail = re.split(rb"[\r\n]", tail, maxsplit=1)[-1]
    # PostgreSQL's text holds no NUL.
    return without_secrets(tail.decode(errors="replace").replace("\0", "\ufffd"))


def clear_log(path: Path) -> None:
    """Takes out of a log what looks like a secret. One without any stays as it is: it may be large, and the disk
    full."""
    if all(without_secrets(line) == line for line in _lines(path)):
        return
    with replacing(path) as beside, beside.open("w", errors="surrogateescape", newline="") as file:
        file.writelines(map(without_secrets, _lines(path)))


def _lines(path: Path) -> Iterator[str]:
    with path.open(errors="surrogateescape", newline="") as file:
        yield from iter(lambda: file.readline(_LONGEST_LINE), "")


def read_error(run_dir: RunDir) -> Failure | None:
    """What the trainer wrote of its failure; or that it had no room to, on a full disk. None where it wrote nothing, or
    was killed while it did."""
    try:
        failure = Failure.model_validate_json(run_dir.error.read_bytes())
        return failure.model_copy(update={"message": without_secrets(failure.message)})
    except FileNotFoundError:
        pass
    except ValidationError as error:
        log.warning("%s is torn: %s", run_dir.error, error)
    if run_dir.path.is_dir() and shutil.disk_usage(run_dir.path).free < _NO_ROOM:
        message = "the server's disk is full; the trainer had no room left to say what it was at"
        return Failure(code=FailureCode.DISK_FULL, message=message)
    return None
