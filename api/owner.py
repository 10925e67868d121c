"""What an owner is called."""

import re
from typing import Annotated

from pydantic import StringConstraints

from api.errors import InvalidParameter
from contract import patterns

Owner = Annotated[str, StringConstraints(pattern=patterns.OWNER)]


def check_owner(param: str, given: str) -> str:
    """Raises InvalidParameter."""
    if not re.fullmatch(patterns.OWNER, given):
        raise InvalidParameter(param, given, f"use {patterns.WORDS[patterns.OWNER]}")
    return given
