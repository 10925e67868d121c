"""Evaluations of jobs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from finetuned._sync.transport import Transport, part
from finetuned.objects.jobs import EvaluatedRow, EvaluationFields
from finetuned.pauses import pause

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Evaluation(EvaluationFields):
    """An evaluation as it was when the service answered."""

    transport: Transport = field(kw_only=True, repr=False, compare=False)

    def refresh(self) -> Self:
        return self.from_json(self.transport.json("GET", self._path), transport=self.transport)

    def wait(self) -> Self:
        """Waits until it has succeeded or failed; gives it as it is then."""
        found = self
        while not found.ended:
            pause(_POLL_SECONDS)
            found = found.refresh()
        return found

    def rows(self) -> Iterator[EvaluatedRow]:
        """Yields the examples that are done, in the order of the file."""
        for each in self.transport.pages(f"{self._path}/rows", cursor="number"):
            yield EvaluatedRow.from_json(each)

    def delete(self) -> None:
        """Deletes it with its rows; one that is not done ends."""
        self.transport.send("DELETE", self._path)

    @property
    def _path(self) -> str:
        return f"/jobs/{part(self.job_id)}/evaluations/{part(self.id)}"


class Evaluations:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, job_id: str, dataset: str | dict[str, Any], **options: Any) -> Evaluation:
        """Requests that a dataset is run through a job's base model and its adapter. Options are checkpoint, limit,
        max_new_tokens, temperature and seed. Raises InvalidRequest with the field that is wrong in `param`."""
        path = f"/jobs/{part(job_id)}/evaluations"
        answer = self._transport.json("POST", path, json={"dataset": dataset, **options})
        return Evaluation.from_json(answer, transport=self._transport)

    def get(self, job_id: str, evaluation_id: str) -> Evaluation:
        path = f"/jobs/{part(job_id)}/evaluations/{part(evaluation_id)}"
        return Evaluation.from_json(self._transport.json("GET", path), transport=self._transport)

    def of(self, job_id: str) -> Iterator[Evaluation]:
        """Yields a job's evaluations, newest first."""
        for each in self._transport.pages(f"/jobs/{part(job_id)}/evaluations"):
            yield Evaluation.from_json(each, transport=self._transport)

    def list(self, dataset_sha256: str | None = None) -> Iterator[Evaluation]:
        """Yields those of all jobs, newest first; `dataset_sha256` chooses those on one dataset."""
        params = {} if dataset_sha256 is None else {"dataset_sha256": dataset_sha256}
        for each in self._transport.pages("/evaluations", **params):
            yield Evaluation.from_json(each, transport=self._transport)
