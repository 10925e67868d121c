"""The service, seen from Python: one method per route.

with Client("http://127.0.0.1:8000") as client:
    job = client.submit({"model": "smollm2-135m-instruct", "dataset": "examples/data/quickstart.jsonl"})
    for event in client.events(job["id"]):
        print(event.type, event.data)
    client.download(job["id"], Path("adapter"))
"""

import hashlib
import json
import secrets
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from contract.status import TERMINAL
from finetuned.sse import parse_events

DEFAULT_URL = "http://127.0.0.1:8000"

Job = dict[str, Any]
"""As the API gives it; `finetuned show` prints one."""

_ANSWER_SECONDS = 30.0
_PLAN_SECONDS = 90.0  # it may read and tokenise a part of a large dataset
_UPLOAD_SECONDS = 300.0  # until the next word of the service, which writes a large file to its disk meanwhile
_LOOK_SECONDS = 0.5
_QUIET_SECONDS = 45.0  # a stream sends a comment at least every 15 s
_RECONNECT_SECONDS = (0.2, 1.0, 2.0, 4.0, 8.0, 15.0)


class ServiceError(Exception):
    """The service did not do what was asked.

    Refused         it answered with an error
    Unreachable     it did not answer
    Damaged         it sent what is no whole archive
    """


class Refused(ServiceError):
    def __init__(self, status: int, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class Unreachable(ServiceError):
    def __init__(self, url: str, error: Exception) -> None:
        super().__init__(f"no finetuned service answers at {url} ({error or type(error).__name__})")
        self.url = url


class Damaged(ServiceError):
    pass


@dataclass(frozen=True)
class JobEvent:
    type: str
    """status, queue, retry, or the type of a contract.events line."""
    time: float
    """Seconds since the epoch."""
    data: dict[str, Any]


class Client:
    def __init__(self, url: str = DEFAULT_URL, owner: str | None = None, key: str | None = None) -> None:
        """`key` is needed where the service is not on this machine. `owner` is for whom an admin, or anybody without a
        key, asks; None is the key's owner, or "default"."""
        self.url, self.key = url.rstrip("/"), key
        # As bytes: what does not fit into a header is for the service to refuse, in its own words.
        headers = {} if owner is None else {b"x-owner": owner.encode()}
        if key is not None:
            headers[b"authorization"] = b"Bearer " + key.encode()
        # A proxy has no way to a service on this machine.
        here = urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_ANSWER_SECONDS, trust_env=not here)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def submit(self, recipe: dict[str, Any] | bytes, force: bool = False) -> Job:
        """`recipe` as a dictionary or as its JSON text; with `force` also one that cannot fit into memory. Raises
        Refused with the service's words for what is wrong."""
        # Sent again after a broken connection it makes no second job.
        headers = {"content-type": "application/json", "idempotency-key": secrets.token_hex(16)}
        params = {"force": "true"} if force else {}
        return self._json("POST", "/jobs", content=_body(recipe), headers=headers, params=params)

    def plan(self, recipe: dict[str, Any] | bytes) -> dict[str, Any]:
        """What the recipe would take: memory, steps, disk, time. Raises Refused, as submit does."""
        headers = {"content-type": "application/json"}
        return self._json("POST", "/plans", content=_body(recipe), headers=headers, timeout=_PLAN_SECONDS)

    def job(self, job_id: str) -> Job:
        return self._json("GET", f"/jobs/{_part(job_id)}")

    def jobs(self) -> Iterator[Job]:
        """All jobs, newest first."""
        yield from self._pages("/jobs")

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            page = self._json("GET", path, params={"limit": "100"} | after)
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["data"][-1]["id"]}

    def cancel(self, job_id: str, force: bool = False) -> Job:
        """Asks for the job's end, with `force` without time to save; it is `cancelled` when every process of it is
        gone."""
        return self._json("POST", f"/jobs/{_part(job_id)}/cancel", params={"force": "true"} if force else {})

    def pause(self, job_id: str) -> Job:
        """Asks the job to save and to be set aside; it is `paused` when its devices are free."""
        return self._json("POST", f"/jobs/{_part(job_id)}/pause")

    def resume(self, job_id: str) -> Job:
        """Lets a paused job go on from where it saved."""
        return self._json("POST", f"/jobs/{_part(job_id)}/resume")

    def retry(self, job_id: str) -> Job:
        """Lets a job that has failed or was cancelled go on from where it last saved."""
        return self._json("POST", f"/jobs/{_part(job_id)}/retry")

    def workers(self) -> list[dict[str, Any]]:
        """The workers, and what runs on each of their devices."""
        found: list[dict[str, Any]] = self._json("GET", "/workers")["data"]
        return found

    def create_key(self, owner: str, name: str | None = None, admin: bool = False) -> dict[str, Any]:
        """A key of `owner`; its "secret" is told this once."""
        return self._json("POST", "/keys", json={"owner": owner, "name": name, "admin": admin})

    def keys(self) -> Iterator[dict[str, Any]]:
        """All keys, newest first, the revoked ones too."""
        yield from self._pages("/keys")

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        return self._json("DELETE", f"/keys/{_part(key_id)}")

    def add_webhook(self, url: str, events: Sequence[str] = ()) -> dict[str, Any]:
        """Has `url` told of `events`, else of the ends of jobs. The answer's "secret" is told this once."""
        return self._json("POST", "/webhooks", json={"url": url} | ({"events": list(events)} if events else {}))

    def webhooks(self) -> Iterator[dict[str, Any]]:
        """All webhooks, newest first."""
        yield from self._pages("/webhooks")

    def delete_webhook(self, webhook_id: str) -> None:
        self._json("DELETE", f"/webhooks/{_part(webhook_id)}")

    def test_webhook(self, webhook_id: str) -> dict[str, Any]:
        """Has a ping sent; gives its delivery, which is still to come."""
        return self._json("POST", f"/webhooks/{_part(webhook_id)}/test")

    def deliveries(self, webhook_id: str) -> Iterator[dict[str, Any]]:
        """What was sent to a webhook or is to be, newest first."""
        yield from self._pages(f"/webhooks/{_part(webhook_id)}/deliveries")

    def add_dataset(
        self, file: Path, format: str | None = None, columns: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Uploads a file of examples. Its rows may still be checked when this returns: see wait_for_dataset. Raises
        ServiceError, OSError."""
        fields = {} if format is None else {"format": format}
        if columns:
            fields["columns"] = json.dumps(columns)
        with file.open("rb") as opened:
            form = {"file": (file.name, opened, "application/octet-stream")}
            return self._json("POST", "/datasets", files=form, data=fields, timeout=_UPLOAD_SECONDS)

    def refer_to_dataset(self, reference: dict[str, Any]) -> dict[str, Any]:
        """A file that is on the server, {"path": ...}, or that it fetches, {"hub": "org/name", "file": ...}."""
        return self._json("POST", "/datasets", json=reference, timeout=_UPLOAD_SECONDS)

    def wait_for_dataset(self, dataset_id: str) -> dict[str, Any]:
        """Once all its rows are checked."""
        while (dataset := self.dataset(dataset_id))["status"] == "uploaded":
            time.sleep(_LOOK_SECONDS)
        return dataset

    def dataset(self, dataset_id: str) -> dict[str, Any]:
        return self._json("GET", f"/datasets/{_part(dataset_id)}")

    def datasets(self) -> Iterator[dict[str, Any]]:
        """All of them, newest first."""
        return self._pages("/datasets")

    def dataset_report(self, dataset_id: str, model: str, **options: Any) -> dict[str, Any]:
        """How long its examples are as the model's tokens; options are chat_template and max_length."""
        return self._json("GET", f"/datasets/{_part(dataset_id)}/report", params={"model": model, **options})

    def preview(self, dataset_id: str, model: str, **options: Any) -> dict[str, Any]:
        """Rows as the model sees them; options are limit, offset, chat_template and max_length."""
        return self._json("GET", f"/datasets/{_part(dataset_id)}/preview", params={"model": model, **options})

    def delete_dataset(self, dataset_id: str) -> None:
        self._request("DELETE", f"/datasets/{_part(dataset_id)}")

    def metrics(self, job_id: str) -> dict[str, Any]:
        return self._json("GET", f"/jobs/{_part(job_id)}/metrics")

    def artifacts(self, job_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._json("GET", f"/jobs/{_part(job_id)}/artifacts")["data"]
        return found

    def events(self, job_id: str, reconnecting: Callable[[str], None] = lambda note: None) -> Iterator[JobEvent]:
        """All that happens to the job, from its start until it has ended.

        A broken connection is taken up again where it broke, and `reconnecting` is told. Raises Unreachable when the
        service stays away for half a minute.
        """
        last_id, failures, ended = "", 0, False
        while True:
            try:
                for event_id, event in self._stream(job_id, last_id):
                    last_id, failures = event_id, 0
                    # What happened before may be told after, and a job that has failed may be retried: it is the
                    # service that ends the stream.
                    if event.type == "status":
                        ended = event.data["status"] in TERMINAL
                    yield event
                if ended:
                    return
                problem: Exception = ConnectionError("the stream ended early")
            except httpx.TransportError as error:
                problem = error
            except Refused as error:
                if error.status < 500:
                    raise
                problem = error
            if failures == len(_RECONNECT_SECONDS):
                raise Unreachable(self.url, problem) from problem
            reconnecting(f"lost the connection to {self.url} ({problem or type(problem).__name__}); trying again")
            time.sleep(_RECONNECT_SECONDS[failures])
            failures += 1

    def _stream(self, job_id: str, last_id: str) -> Iterator[tuple[str, JobEvent]]:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
        path = f"/jobs/{_part(job_id)}/events"
        with self._http.stream("GET", path, headers=headers, timeout=_QUIET_SECONDS) as response:
            _raise_for_error(response)
            for event in parse_events(response.iter_lines()):
                data = json.loads(event.data)
                yield event.id, JobEvent(event.event, data.pop("time", 0.0), data)

    def save_artifact(self, job_id: str, name: str, file: Path) -> None:
        """Streams the artifact to `file`, which is whole or absent. What breaks off is gone on with: a few times here,
        and at the next call with the same file. Raises ServiceError, Damaged for bytes that are not the service's."""
        path = f"/jobs/{_part(job_id)}/artifacts/{_part(name)}"
        for seconds in (*_RECONNECT_SECONDS[:4], None):
            try:
                partial, sha256 = self._save_rest(path, file)
                break
            except httpx.TransportError as error:
                if seconds is None or isinstance(error, httpx.ConnectError):
                    raise Unreachable(self.url, error) from error
                time.sleep(seconds)
        try:
            if sha256 is not None and _sha256(partial) != sha256:
                raise Damaged(f"{name} of job {job_id} came with other bytes than the service has; try again")
            partial.rename(file)
        finally:
            partial.unlink(missing_ok=True)

    def _save_rest(self, path: str, file: Path) -> tuple[Path, str | None]:
        """What is missing of it. The file beside, and the SHA-256 that it is to have, where the service tells one."""
        with self._http.stream("GET", path) as response:
            _raise_for_error(response)
            sha256 = response.headers.get("etag", "").strip('"') or None
            partial = file.with_name(f".{file.name}.{(sha256 or secrets.token_hex(8))[:16]}.partial")
            there = partial.stat().st_size if partial.exists() else 0
            if there == 0:
                _append(response, partial)
                return partial, sha256
            whole = there == int(response.headers["content-length"])
        if not whole:
            asked = {"range": f"bytes={there}-", "if-range": f'"{sha256}"'}
            with self._http.stream("GET", path, headers=asked) as response:
                _raise_for_error(response)
                if response.status_code != HTTPStatus.PARTIAL_CONTENT:
                    partial.unlink()
                _append(response, partial)
        return partial, sha256

    def artifact_text(self, job_id: str, name: str) -> str:
        return self._request("GET", f"/jobs/{_part(job_id)}/artifacts/{_part(name)}").text

    def samples(self, job_id: str, step: int | None = None) -> list[dict[str, Any]]:
        """What the model answered at the evaluation at `step`, else at the latest one."""
        params = {} if step is None else {"step": step}
        found: list[dict[str, Any]] = self._json("GET", f"/jobs/{_part(job_id)}/samples", params=params)["data"]
        return found

    def download(self, job_id: str, out: Path, best: bool = False) -> Path:
        """Unpacks the job's adapter, or the best that it has saved by evaluation loss, below `out`; gives its folder.

        Raises ServiceError, OSError.
        """
        name = "best" if best else "adapter"
        out.mkdir(parents=True, exist_ok=True)
        archive = out / f".{name}.tar"
        self.save_artifact(job_id, f"{name}.tar", archive)
        try:
            with tempfile.TemporaryDirectory(dir=out, prefix=".download-") as scratch:
                with tarfile.open(archive) as opened:
                    opened.extractall(scratch, filter="data")  # refuses what would leave it
                # The best is in a folder of the name that it has among the job's artifacts.
                (folder,) = Path(scratch).iterdir()
                shutil.copytree(folder, out / name, dirs_exist_ok=True)
        except (tarfile.TarError, EOFError) as error:
            raise Damaged(f"the adapter of job {job_id} cannot be unpacked: {error}") from error
        finally:
            archive.unlink()
        return out / name

    def export(self, job_id: str, source: str = "adapter.tar") -> dict[str, Any]:
        """Has the base and what the job has saved merged; asked again it gives the same."""
        asked = {"format": "merged", "source": source}
        return self._json("POST", f"/jobs/{_part(job_id)}/exports", json=asked)

    def export_of(self, job_id: str, export_id: str) -> dict[str, Any]:
        return self._json("GET", f"/jobs/{_part(job_id)}/exports/{_part(export_id)}")

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._request(method, path, **options).json()
        return answer

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unreachable(self.url, error) from error
        _raise_for_error(response)
        return response


def _body(recipe: dict[str, Any] | bytes) -> bytes:
    return recipe if isinstance(recipe, bytes) else json.dumps(recipe).encode()


def _append(response: httpx.Response, file: Path) -> None:
    with file.open("ab") as output:
        for chunk in response.iter_raw():  # as it comes: what was gathered is lost where it breaks off
            output.write(chunk)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _part(value: str) -> str:
    return quote(value, safe="")


def _raise_for_error(response: httpx.Response) -> None:
    if response.is_success:
        return
    response.read()
    try:
        error = response.json()["error"]
        raise Refused(response.status_code, error["code"], error["message"], error.get("param"))
    except (ValueError, KeyError, TypeError):
        message = f"{response.request.url} answered {response.status_code}, and not as a finetuned service does"
        raise Refused(response.status_code, "unknown", message, None) from None
