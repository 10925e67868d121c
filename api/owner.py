"""What an owner is called."""

import re
from typing import Annotated

from pydantic import StringConstraints

from api.errors import InvalidParameter

OWNER = r"[A-Za-z0-9_.@-]{1,100}"
_WORDS = "give 1 to 100 letters (a to z), digits, or any of . _ @ -"

Owner = Annotated[str, StringConstraints(pattern=f"^{OWNER}$")]


def check_owner(param: str, given: str) -> str:
    """Raises InvalidParameter."""
    if not re.fullmatch(OWNER, given):
        raise InvalidParameter(param, given, _WORDS)
    return given
