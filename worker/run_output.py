"""Reads what an attempt leaves in its run folder.

A trainer holds credentials that its libraries may print, so its output is redacted before anyone else sees it.
"""

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
from runtime.atomic_files import replacing
from runtime.logs import redact

log = logging.getLogger(__name__)

LOG_TAIL = 8_000
"""Bytes of a log that the job keeps."""
_NO_ROOM = 1 << 20
"""With fewer free bytes on the disk, a trainer may be unable to write why it failed."""
_LONGEST_LINE = 1 << 20
"""Characters of a log that are redacted at once."""


def read_exit_report(path: Path) -> ExitReport | None:
    """The guard's report; None if the guard was killed."""
    try:
        return ExitReport.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        log.warning("%s is incomplete: %s", path, error)
        return None


def read_log_tail(path: Path) -> str:
    """The last lines of a log, redacted; empty if there is no log."""
    try:
        with path.open("rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - LOG_TAIL)
            file.seek(start)
            tail = file.read()
    except FileNotFoundError:
        return ""
    if start:
        # A secret that is cut in half is not recognised, so the first, incomplete line goes.
        tail = re.split(rb"[\r\n]", tail, maxsplit=1)[-1]
    # PostgreSQL's text holds no NUL.
    return redact(tail.decode(errors="replace").replace("\0", "\ufffd"))


def redact_log(path: Path) -> None:
    """Redacts a log in place. A log without secrets is not written again: it may be large, and the disk full."""
    if all(redact(line) == line for line in _lines(path)):
        return
    with replacing(path) as beside, beside.open("w", errors="surrogateescape", newline="") as file:
        file.writelines(map(redact, _lines(path)))


def _lines(path: Path) -> Iterator[str]:
    with path.open(errors="surrogateescape", newline="") as file:
        yield from iter(lambda: file.readline(_LONGEST_LINE), "")


def read_error(run_dir: RunDir) -> Failure | None:
    """Why the trainer failed, by its error.json, or because the disk is too full to write one.

    None if it wrote nothing, or was killed while it wrote.
    """
    try:
        failure = Failure.model_validate_json(run_dir.error.read_bytes())
        return failure.model_copy(update={"message": redact(failure.message)})
    except FileNotFoundError:
        pass
    except ValidationError as error:
        log.warning("%s is incomplete: %s", run_dir.error, error)
    if run_dir.path.is_dir() and shutil.disk_usage(run_dir.path).free < _NO_ROOM:
        message = "the server's disk is full; the trainer had no room left to say what it was at"
        return Failure(code=FailureCode.DISK_FULL, message=message)
    return None
