"""Has datasets read by processes of their own."""

from typing import Any

from api.errors import TooManyRequests
from dataset.sandbox import Busy, DatasetSandbox


def look(sandbox: DatasetSandbox, task: str, seconds: float, **given: Any) -> Any:
    """As DatasetSandbox.run. Raises InputError, TooManyRequests, Stopped."""
    try:
        return sandbox.run(task, seconds, **given)
    except Busy as error:
        raise TooManyRequests("as many datasets are being read as the service reads at once; ask again", 5) from error
