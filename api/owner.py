"""What an owner is called."""

import re
from typing import Annotated

from pydantic import StringConstraints

from api.errors import InvalidParameter

LONGEST = 100
# Without a lookahead, which pydantic's expressions have not. A name of dots alone would be a folder's in a path.
OWNER = r"\.*[A-Za-z0-9_@-][A-Za-z0-9_.@-]*"
_WORDS = "give 1 to 100 letters (a to z), digits, or any of . _ @ -, and not dots alone"

Owner = Annotated[str, StringConstraints(pattern=f"^{OWNER}$", max_length=LONGEST)]


def check_owner(param: str, given: str) -> str:
    """Raises InvalidParameter."""
    if len(given) > LONGEST or not re.fullmatch(OWNER, given):
        raise InvalidParameter(param, given, _WORDS)
    return given
