"""Jobs, and what a job has."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from finetuned._async.downloads import download_async
from finetuned._async.following import follow_async
from finetuned._async.transport import AsyncTransport, part, recipe_body
from finetuned.errors import WaitTimeout
from finetuned.events import JobEvent
from finetuned.objects.jobs import Artifact, Export, JobFields, Metrics, Push, Sample
from finetuned.pauses import pause_async
from finetuned.unpacking import unpack

_POLL_SECONDS = 1.0
_METRICS_AT_ONCE = 10_000


@dataclass(frozen=True)
class AsyncJob(JobFields):
    """A job as it was when the service answered; `refresh` reads it again, and so do the methods that give a job."""

    transport: AsyncTransport = field(kw_only=True, repr=False, compare=False)

    async def refresh(self) -> Self:
        return await self._action("GET", "")

    async def cancel(self, force: bool = False) -> Self:
        """Requests the end of the job; `force` gives it no time to save. It becomes "cancelled" once all its processes
        are gone."""
        return await self._action("POST", "/cancel", force)

    async def pause(self) -> Self:
        """Requests that the job saves and stops; it becomes "paused" once its devices are free."""
        return await self._action("POST", "/pause")

    async def resume(self) -> Self:
        """Queues the paused job again; it continues from its last training checkpoint."""
        return await self._action("POST", "/resume")

    async def retry(self) -> Self:
        """Queues the failed or cancelled job again; it continues from its last training checkpoint."""
        return await self._action("POST", "/retry")

    async def delete(self) -> None:
        """Deletes the job, which has ended, with its artifacts and everything else that it has left."""
        await self.transport.send("DELETE", self._path)

    async def _action(self, method: str, action: str, force: bool = False) -> Self:
        params = {"force": "true"} if force else {}
        answer = await self.transport.json(method, f"{self._path}{action}", params=params)
        return self.from_json(answer, transport=self.transport)

    @property
    def _path(self) -> str:
        return f"/jobs/{part(self.id)}"

    def watch(
        self, after: str = "", reconnecting: Callable[[str], None] = lambda note: None
    ) -> AsyncIterator[JobEvent]:
        """Yields every event of the job once, from its start, or after the event with the id `after`, until the job has
        ended.

        Reconnects when the connection breaks, and calls `reconnecting` with a line about it; raises Unreachable once
        that has failed for half a minute.
        """
        return follow_async(self.transport.http, f"{self._path}/events", after, reconnecting)

    async def wait(self, timeout: float | None = None) -> Self:
        """Waits until the job has ended; gives it as it is then. Raises WaitTimeout after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        job = await self.refresh()
        while not job.ended:
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(f"job {self.id} is {job.status} after {timeout:g} s")
            left = _POLL_SECONDS if deadline is None else deadline - time.monotonic()
            await pause_async(max(0.0, min(_POLL_SECONDS, left)))
            job = await job.refresh()
        return job

    async def metrics(self, points: int | None = None, columns: str | None = None) -> Metrics:
        """Gives the training metrics, every step of them: pandas.DataFrame(job.metrics()). `points` leaves out steps
        of a longer run, and `columns`, such as "loss,learning_rate", the other columns."""
        params = {name: value for name, value in (("points", points), ("columns", columns)) if value is not None}
        found: dict[str, list[Any]] = {}
        while True:
            since = found["step"][-1] if found.get("step") else 0
            at_once = {} if points else {"since_step": since, "limit": _METRICS_AT_ONCE}
            answer = await self.transport.json("GET", f"{self._path}/metrics", params=params | at_once)
            for name, values in answer["columns"].items():
                found.setdefault(name, []).extend(values)
            if points or len(answer["columns"].get("step", ())) < _METRICS_AT_ONCE:
                return Metrics(found, answer.get("evaluations") or {}, answer.get("thinned") or False)

    async def samples(self, step: int | None = None) -> list[Sample]:
        """Lists the model's answers at the evaluation of `step`, or of the latest one."""
        params = {} if step is None else {"step": step}
        answer = await self.transport.json("GET", f"{self._path}/samples", params=params)
        return [Sample.from_json(each) for each in answer["data"]]

    async def artifacts(self) -> list[Artifact]:
        """Lists the files that the job has published."""
        answer = await self.transport.json("GET", f"{self._path}/artifacts")
        return [Artifact.from_json(each) for each in answer["data"]]

    async def read_artifact(self, name: str) -> str:
        """Gives the text of a small artifact, such as "trainer.log"."""
        return (await self.transport.send("GET", self._artifact(name))).text

    async def save_artifact(self, name: str, file: Path | str) -> None:
        """Downloads an artifact to `file`, which is complete or absent.

        An interrupted download continues, and so does the next call with the same `file`. Raises Damaged when the bytes
        differ from what the service has, and OSError.
        """
        await download_async(self.transport.http, self._artifact(name), Path(file))

    async def download(self, out: Path | str, best: bool = False) -> Path:
        """Unpacks the job's adapter into a folder in `out`, and gives this folder. `best` takes the checkpoint of the
        best evaluation. Raises Damaged when the archive cannot be unpacked, and OSError."""
        name = "best" if best else "adapter"
        folder = Path(out) / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        archive = folder.parent / f".{name}.tar"
        await self.save_artifact(f"{name}.tar", archive)
        unpack(archive, folder)
        return folder

    def _artifact(self, name: str) -> str:
        return f"{self._path}/artifacts/{part(name)}"

    async def export(
        self, source: str = "adapter.tar", format: str = "merged", shard_size: str | None = None
    ) -> Export:
        """Exports an artifact of the job, and waits until that is done or has failed. A second call gives the same one.

        `format` is "merged", "merged-gguf-f16", "merged-gguf-q8_0", "portable" or "gguf". `shard_size`, such as "2GB",
        is the largest file of a merged model's weights. Raises InvalidRequest for an adapter that cannot have the
        format."""
        body = {"format": format, "source": source} | ({"shard_size": shard_size} if shard_size else {})
        export = Export.from_json(await self.transport.json("POST", f"{self._path}/exports", json=body))
        while export.status in ("queued", "running"):
            await pause_async(_POLL_SECONDS)
            export = Export.from_json(await self.transport.json("GET", f"{self._path}/exports/{part(export.id)}"))
        return export

    async def push(  # parameters: the fields of the request
        self,
        repo: str,
        artifact: str = "adapter.tar",
        secret: str = "hub",
        private: bool = True,
        revision: str | None = None,
        trying: Callable[[Push], None] = lambda push: None,
    ) -> Push:
        """Uploads an artifact of the job to the model repo "org/name" of a hub, and waits until that is done or has
        failed. `secret` names the stored secret with the hub's token; `private` counts if the repo is created. Calls
        `trying` with the push after each failed try."""
        body = {"repo": repo, "artifact": artifact, "secret": secret, "private": private, "revision": revision}
        push = Push.from_json(await self.transport.json("POST", f"{self._path}/pushes", json=body))
        failures = push.failures
        while push.status in ("queued", "running"):
            await pause_async(_POLL_SECONDS)
            push = Push.from_json(await self.transport.json("GET", f"{self._path}/pushes/{part(push.id)}"))
            if push.failures > failures:
                failures = push.failures
                trying(push)
        return push


class AsyncJobs:
    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def create(self, recipe: dict[str, Any] | bytes, force: bool = False) -> AsyncJob:
        """Creates a job from a recipe, given as a dictionary or as JSON text. `force` accepts a recipe that is expected
        to run out of memory. Raises InvalidRequest with the field that is wrong in `param`."""
        params = {"force": "true"} if force else {}
        answer = await self._transport.json("POST", "/jobs", params=params, **recipe_body(recipe))
        return AsyncJob.from_json(answer, transport=self._transport)

    async def get(self, job_id: str) -> AsyncJob:
        answer = await self._transport.json("GET", f"/jobs/{part(job_id)}")
        return AsyncJob.from_json(answer, transport=self._transport)

    def at(self, job_id: str) -> AsyncJob:
        """The job with this id, without a request: only its methods are of use."""
        return AsyncJob(job_id, "", transport=self._transport)

    async def list(self, owner: str | None = None) -> AsyncIterator[AsyncJob]:
        """Yields jobs, newest first; `owner` chooses those of one owner."""
        params = {} if owner is None else {"owner": owner}
        async for each in self._transport.pages("/jobs", **params):
            yield AsyncJob.from_json(each, transport=self._transport)
