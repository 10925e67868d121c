"""What an owner is called."""

from typing import Annotated

from pydantic import StringConstraints

OWNER = r"[A-Za-z0-9_.@-]{1,100}"
OWNER_WORDS = "give 1 to 100 letters (a to z), digits, or any of . _ @ -"

Owner = Annotated[str, StringConstraints(pattern=f"^{OWNER}$")]
