"""Has datasets read by processes of their own."""

from typing import Any

from api.errors import TooManyRequests
from dataset.child import Busy, Children


def look(children: Children, task: str, seconds: float, **given: Any) -> Any:
    """As Children.ask. Raises InputError, TooManyRequests, Stopped."""
    try:
        return children.ask(task, seconds, **given)
    except Busy as error:
        raise TooManyRequests("as many datasets are being read as the service reads at once; ask again", 5) from error
