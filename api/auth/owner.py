"""The names of owners."""

import re
from typing import Annotated

from pydantic import StringConstraints

from api.errors import InvalidParameter
from contract import patterns

Owner = Annotated[str, StringConstraints(pattern=patterns.OWNER, max_length=patterns.LONGEST_OWNER)]


def check_owner(param: str, given: str) -> str:
    """Raises InvalidParameter."""
    if len(given) > patterns.LONGEST_OWNER or not re.fullmatch(patterns.OWNER, given):
        raise InvalidParameter(param, given, f"use {patterns.DESCRIPTIONS[patterns.OWNER]}")
    return given
