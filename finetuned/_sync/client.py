"""A connection to one service, with a part for each noun."""

from types import TracebackType
from typing import Self

from finetuned._sync.administration import (
    Keys,
    Plans,
    Quotas,
    Secrets,
    Webhooks,
    Workers,
)
from finetuned._sync.datasets import Datasets
from finetuned._sync.evaluations import Evaluations
from finetuned._sync.jobs import Jobs
from finetuned._sync.models import Models
from finetuned._sync.ratings import Ratings
from finetuned._sync.sweeps import Sweeps
from finetuned._sync.transport import Transport
from finetuned.objects.operations import Clean

_CLEAN_SECONDS = 600.0  # the service may look at the files of many jobs


class Client:
    """A connection to one service; use it in a `with` block.

    Methods raise Refused when the service answers with an error, and Unreachable when it does not answer; both are
    ServiceErrors. Requests that failed on the way, or that the service could not take at the moment, are repeated up to
    `max_retries` times; the service does a repeated request once.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        owner: str | None = None,
        timeout: float = 30.0,
        max_retries: int = 2,
    ) -> None:
        """The defaults are the variables FINETUNED_URL, FINETUNED_API_KEY and FINETUNED_OWNER. `owner` is the owner to
        act for, which takes an admin's key or a service without keys. `timeout` is seconds without an answer."""
        self._transport = Transport(url, key, owner, timeout, max_retries)
        self.jobs = Jobs(self._transport)
        self.evaluations = Evaluations(self._transport)
        self.models = Models(self._transport)
        self.ratings = Ratings(self._transport)
        self.sweeps = Sweeps(self._transport)
        self.datasets = Datasets(self._transport)
        self.plans = Plans(self._transport)
        self.workers = Workers(self._transport)
        self.keys = Keys(self._transport)
        self.quotas = Quotas(self._transport)
        self.secrets = Secrets(self._transport)
        self.webhooks = Webhooks(self._transport)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @property
    def url(self) -> str:
        return self._transport.url

    @property
    def key(self) -> str | None:
        return self._transport.key

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; a `with` block does it."""
        self._transport.http.close()

    def check(self) -> None:
        """Raises Unreachable or Refused unless the service answers. Needs no key."""
        self._transport.json("GET", "/health/live")

    def clean(self, dry_run: bool = False) -> Clean:
        """Deletes what the service's retention settings no longer keep, or with `dry_run` only says what that is. Takes
        an admin's key."""
        params = {"dry_run": "true"} if dry_run else {}
        return Clean.from_json(self._transport.json("POST", "/clean", params=params, timeout=_CLEAN_SECONDS))
