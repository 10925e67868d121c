"""Sweeps: jobs that try values of a recipe's fields."""

from collections.abc import Iterator, Sequence
from typing import Any

from finetuned._sync.transport import Transport, part, recipe_body
from finetuned.objects.jobs import Sweep

_CREATE_SECONDS = 90.0  # the service may read several datasets first


class Sweeps:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, sweep: dict[str, Any] | bytes, force: bool = False) -> Sweep:
        """Creates the jobs of a sweep, all or none, from {"recipe": ..., "grid": {"adapter.r": [8, 16]}} or with a
        "list" of the values of each job. Raises InvalidRequest with the value that is wrong in `param`."""
        params = {"force": "true"} if force else {}
        answer = self._transport.json("POST", "/sweeps", params=params, timeout=_CREATE_SECONDS, **recipe_body(sweep))
        return Sweep.from_json(answer)

    def get(self, sweep_id: str) -> Sweep:
        """Gives a sweep with the results of its `jobs`, and the id of the `best`."""
        return Sweep.from_json(self._transport.json("GET", f"/sweeps/{part(sweep_id)}"))

    def list(self) -> Iterator[Sweep]:
        for each in self._transport.pages("/sweeps"):
            yield Sweep.from_json(each)

    def cancel(self, sweep_id: str, keep: Sequence[str] = ()) -> Sweep:
        """Requests the end of all jobs of a sweep but those to `keep`."""
        params = {"keep": [*keep]} if keep else {}
        return Sweep.from_json(self._transport.json("POST", f"/sweeps/{part(sweep_id)}/cancel", params=params))
