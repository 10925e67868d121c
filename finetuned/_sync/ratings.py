"""Ratings of answers, at jobs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from finetuned._sync.downloads import download
from finetuned._sync.transport import Transport, part
from finetuned.objects.jobs import Rating

Method = Literal["kto", "dpo"]


class Ratings:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, job_id: str, messages: list[dict[str, Any]], answer: dict[str, Any], model: str, **verdict: Any
    ) -> Rating:
        """Rates the answer of a model to messages: with label=True or False, or as better than rejected=..., the answer
        of rejected_model=.... `tools` and `chat_template_kwargs` are those of the question. Raises InvalidRequest with
        the field that is wrong in `param`."""
        body = {"messages": messages, "answer": answer, "model": model, **verdict}
        return Rating.from_json(self._transport.json("POST", self._path(job_id), json=body))

    def of(self, job_id: str) -> Iterator[Rating]:
        """Yields a job's ratings, newest first."""
        for each in self._transport.pages(self._path(job_id)):
            yield Rating.from_json(each)

    def delete(self, job_id: str, rating_id: str) -> None:
        self._transport.send("DELETE", f"{self._path(job_id)}/{part(rating_id)}")

    def rows(self, job_id: str, method: Method) -> list[dict[str, Any]]:
        """Gives them as rows of a dataset, oldest first: those with a label for "kto", the others for "dpo"."""
        answer = self._transport.send("GET", self._rows(job_id, method))
        return [json.loads(line) for line in answer.content.splitlines()]

    def save(self, job_id: str, method: Method, file: Path | str) -> None:
        """Downloads these rows to a JSONL file, which can be uploaded as a dataset. Raises OSError."""
        download(self._transport.http, self._rows(job_id, method), Path(file))

    def _path(self, job_id: str) -> str:
        return f"/jobs/{part(job_id)}/ratings"

    def _rows(self, job_id: str, method: Method) -> str:
        return f"{self._path(job_id)}-{method}.jsonl"
