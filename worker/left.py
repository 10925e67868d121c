"""Reads what an attempt has left in its run folder."""

import logging
import os
from pathlib import Path

from pydantic import ValidationError

from contract.receipt import Receipt

log = logging.getLogger(__name__)

LOG_TAIL = 8_000  # bytes kept in the row


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
