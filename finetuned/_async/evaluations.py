"""Evaluations of jobs."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Self

from finetuned._async.transport import AsyncTransport, part
from finetuned.objects.jobs import EvaluatedRow, EvaluationFields
from finetuned.pauses import pause_async

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class AsyncEvaluation(EvaluationFields):
    """An evaluation as it was when the service answered."""

    transport: AsyncTransport = field(kw_only=True, repr=False, compare=False)

    async def refresh(self) -> Self:
        return self.from_json(await self.transport.json("GET", self._path), transport=self.transport)

    async def wait(self) -> Self:
        """Waits until it has succeeded or failed; gives it as it is then."""
        found = self
        while not found.ended:
            await pause_async(_POLL_SECONDS)
            found = await found.refresh()
        return found

    async def rows(self) -> AsyncIterator[EvaluatedRow]:
        """Yields the examples that are done, in the order of the file."""
        async for each in self.transport.pages(f"{self._path}/rows", cursor="number"):
            yield EvaluatedRow.from_json(each)

    async def delete(self) -> None:
        """Deletes it with its rows; one that is not done ends."""
        await self.transport.send("DELETE", self._path)

    @property
    def _path(self) -> str:
        return f"/jobs/{part(self.job_id)}/evaluations/{part(self.id)}"


class AsyncEvaluations:
    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, job_id: str, dataset: str | dict[str, Any], **options: Any) -> AsyncEvaluation:
        """Requests that a dataset is run through a job's base model and its adapter. Options are checkpoint, limit,
        max_new_tokens, temperature and seed. Raises InvalidRequest with the field that is wrong in `param`."""
        path = f"/jobs/{part(job_id)}/evaluations"
        answer = await self._transport.json("POST", path, json={"dataset": dataset, **options})
        return AsyncEvaluation.from_json(answer, transport=self._transport)

    async def get(self, job_id: str, evaluation_id: str) -> AsyncEvaluation:
        path = f"/jobs/{part(job_id)}/evaluations/{part(evaluation_id)}"
        return AsyncEvaluation.from_json(await self._transport.json("GET", path), transport=self._transport)

    async def of(self, job_id: str) -> AsyncIterator[AsyncEvaluation]:
        """Yields a job's evaluations, newest first."""
        async for each in self._transport.pages(f"/jobs/{part(job_id)}/evaluations"):
            yield AsyncEvaluation.from_json(each, transport=self._transport)

    async def list(self, dataset_sha256: str | None = None) -> AsyncIterator[AsyncEvaluation]:
        """Yields those of all jobs, newest first; `dataset_sha256` chooses those on one dataset."""
        params = {} if dataset_sha256 is None else {"dataset_sha256": dataset_sha256}
        async for each in self._transport.pages("/evaluations", **params):
            yield AsyncEvaluation.from_json(each, transport=self._transport)
