"""Reads what a guard has left."""

import logging
from pathlib import Path

from pydantic import ValidationError

from contract.receipt import Receipt

log = logging.getLogger(__name__)


def read_receipt(path: Path) -> Receipt | None:
    """As a guard has left it; None where it was killed itself."""
    try:
        return Receipt.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        log.warning("%s is torn: %s", path, error)
        return None
