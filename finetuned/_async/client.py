"""A connection to one service, with a part for each noun."""

from types import TracebackType
from typing import Self

from finetuned._async.administration import (
    AsyncKeys,
    AsyncPlans,
    AsyncQuotas,
    AsyncSecrets,
    AsyncWebhooks,
    AsyncWorkers,
)
from finetuned._async.datasets import AsyncDatasets
from finetuned._async.evaluations import AsyncEvaluations
from finetuned._async.jobs import AsyncJobs
from finetuned._async.models import AsyncModels
from finetuned._async.ratings import AsyncRatings
from finetuned._async.sweeps import AsyncSweeps
from finetuned._async.transport import AsyncTransport
from finetuned.objects.operations import Clean

_CLEAN_SECONDS = 600.0  # the service may look at the files of many jobs


class AsyncClient:
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
        self._transport = AsyncTransport(url, key, owner, timeout, max_retries)
        self.jobs = AsyncJobs(self._transport)
        self.evaluations = AsyncEvaluations(self._transport)
        self.models = AsyncModels(self._transport)
        self.ratings = AsyncRatings(self._transport)
        self.sweeps = AsyncSweeps(self._transport)
        self.datasets = AsyncDatasets(self._transport)
        self.plans = AsyncPlans(self._transport)
        self.workers = AsyncWorkers(self._transport)
        self.keys = AsyncKeys(self._transport)
        self.quotas = AsyncQuotas(self._transport)
        self.secrets = AsyncSecrets(self._transport)
        self.webhooks = AsyncWebhooks(self._transport)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @property
    def url(self) -> str:
        return self._transport.url

    @property
    def key(self) -> str | None:
        return self._transport.key

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections; a `with` block does it."""
        await self._transport.http.aclose()

    async def check(self) -> None:
        """Raises Unreachable or Refused unless the service answers. Needs no key."""
        await self._transport.json("GET", "/health/live")

    async def clean(self, dry_run: bool = False) -> Clean:
        """Deletes what the service's retention settings no longer keep, or with `dry_run` only says what that is. Takes
        an admin's key."""
        params = {"dry_run": "true"} if dry_run else {}
        return Clean.from_json(await self._transport.json("POST", "/clean", params=params, timeout=_CLEAN_SECONDS))
