"""Datasets."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from finetuned._async.transport import AsyncTransport, part
from finetuned.errors import WaitTimeout
from finetuned.objects.datasets import DatasetFields, PreviewExample, TokenReport
from finetuned.pauses import pause_async

_UPLOAD_SECONDS = 300.0  # of silence, while the service writes a large file to its disk
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class AsyncDataset(DatasetFields):
    """A dataset as it was when the service answered."""

    transport: AsyncTransport = field(kw_only=True, repr=False, compare=False)

    async def refresh(self) -> Self:
        return self.from_json(await self.transport.json("GET", self._path), transport=self.transport)

    async def wait(self, timeout: float | None = None) -> Self:
        """Waits until every row has been checked; gives the dataset with its `report`. Raises WaitTimeout."""
        began, dataset = time.monotonic(), self
        while dataset.status == "uploaded":
            if timeout is not None and time.monotonic() - began >= timeout:
                raise WaitTimeout(f"dataset {self.id} is still being checked after {timeout:g} s")
            await pause_async(_POLL_SECONDS)
            dataset = await dataset.refresh()
        return dataset

    async def token_report(self, model: str, **options: Any) -> TokenReport:
        """Measures the examples in tokens of `model`; options are chat_template, max_length and method."""
        answer = await self.transport.json("GET", f"{self._path}/report", params={"model": model, **options})
        return TokenReport.from_json(answer)

    async def preview(self, model: str, **options: Any) -> list[PreviewExample]:
        """Shows rows as `model` sees them, token by token; options are limit, offset, chat_template, max_length and
        method."""
        answer = await self.transport.json("GET", f"{self._path}/preview", params={"model": model, **options})
        return [PreviewExample.from_json(each) for each in answer["data"]]

    async def delete(self) -> None:
        await self.transport.send("DELETE", self._path)

    @property
    def _path(self) -> str:
        return f"/datasets/{part(self.id)}"


class AsyncDatasets:
    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def upload(
        self, file: Path | str, format: str | None = None, columns: dict[str, str] | None = None
    ) -> AsyncDataset:
        """Uploads a file of examples. `format` and `columns` say how to read its rows; the service detects both when
        they are not given. The service may still check the rows when this returns: see `wait`. Raises OSError."""
        fields = {} if format is None else {"format": format}
        if columns:
            fields["columns"] = json.dumps(columns)
        with Path(file).open("rb") as opened:
            form = {"file": (Path(file).name, opened, "application/octet-stream")}
            answer = await self._transport.json(
                "POST", "/datasets", rewind=lambda: opened.seek(0), files=form, data=fields, timeout=_UPLOAD_SECONDS
            )
        return AsyncDataset.from_json(answer, transport=self._transport)

    async def register(self, reference: dict[str, Any]) -> AsyncDataset:
        """Adds a dataset from a file on the server, {"path": ...}, or from a hub, {"hub": "org/name", "file": ...}."""
        answer = await self._transport.json("POST", "/datasets", json=reference, timeout=_UPLOAD_SECONDS)
        return AsyncDataset.from_json(answer, transport=self._transport)

    async def get(self, dataset_id: str) -> AsyncDataset:
        answer = await self._transport.json("GET", f"/datasets/{part(dataset_id)}")
        return AsyncDataset.from_json(answer, transport=self._transport)

    def at(self, dataset_id: str) -> AsyncDataset:
        """The dataset with this id, without a request: only its methods are of use."""
        return AsyncDataset(dataset_id, "", transport=self._transport)

    async def list(self, owner: str | None = None) -> AsyncIterator[AsyncDataset]:
        """Yields datasets, newest first; `owner` chooses those of one owner."""
        params = {} if owner is None else {"owner": owner}
        async for each in self._transport.pages("/datasets", **params):
            yield AsyncDataset.from_json(each, transport=self._transport)
