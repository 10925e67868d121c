"""The service from Python: one method per route.

from finetuned import Client

with Client("http://127.0.0.1:8000") as client:
    job = client.submit({"model": "smollm2-135m-instruct", "dataset": "examples/data/quickstart.jsonl"})
    for event in client.events(job["id"]):
        print(event.type, event.data)
    client.download(job["id"], Path("adapter"))
"""

import json
import secrets
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from finetuned import downloads, events
from finetuned.address import DEFAULT_URL, is_loopback
from finetuned.errors import Damaged, Unreachable, raise_for_error
from finetuned.events import JobEvent

Job = dict[str, Any]
"""A job as JSON: "id", "name", "owner", "status", "recipe", "progress" and more; docs/jobs.md lists the fields."""

_TIMEOUT_SECONDS = 30.0
_PLAN_SECONDS = 90.0  # the service may read and tokenize a part of a large dataset
_UPLOAD_SECONDS = 300.0  # of silence, while the service writes a large file to its disk
_CLEAN_SECONDS = 600.0  # the service may look at the files of many jobs
_POLL_SECONDS = 0.5


class Client:
    """A connection to one service; use it in a `with` block.

    Every method raises Refused when the service answers with an error, and Unreachable when it does not answer; both
    are ServiceErrors. Objects are dictionaries, as the API's JSON has them. Methods that list things yield them newest
    first, and read further pages as they are needed.
    """

    def __init__(self, url: str = DEFAULT_URL, owner: str | None = None, key: str | None = None) -> None:
        """`key` is an API key; a service on this machine may need none. `owner` is the owner to act for, which takes an
        admin's key or a service without keys; None is the key's owner, or "default"."""
        self.url, self.key = url.rstrip("/"), key
        # Bytes, so that the service and not httpx refuses text that does not fit into a header.
        headers = {} if owner is None else {b"x-owner": owner.encode()}
        if key is not None:
            headers[b"authorization"] = b"Bearer " + key.encode()
        # A proxy cannot reach a service on this machine.
        proxies = not is_loopback(urlsplit(self.url).hostname or "")
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=proxies)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; a `with` block does it."""
        self._http.close()

    # Jobs

    def submit(self, recipe: dict[str, Any] | bytes, force: bool = False) -> Job:
        """Creates a job from a recipe, given as a dictionary or as JSON text. `force` accepts a recipe that is expected
        to run out of memory. Raises Refused with the field that is wrong in `param`."""
        # The key keeps a repeated request from creating a second job.
        headers = {"content-type": "application/json", "idempotency-key": secrets.token_hex(16)}
        params = {"force": "true"} if force else {}
        return self._json("POST", "/jobs", content=_body(recipe), headers=headers, params=params)

    def plan(self, recipe: dict[str, Any] | bytes) -> dict[str, Any]:
        """Estimates what a recipe needs, without training: "parameters", "work", "disk", and in "devices" the memory,
        time and speed on each kind of device. Raises Refused as `submit` does."""
        headers = {"content-type": "application/json"}
        return self._json("POST", "/plans", content=_body(recipe), headers=headers, timeout=_PLAN_SECONDS)

    def get_job(self, job_id: str) -> Job:
        return self._json("GET", f"/jobs/{_part(job_id)}")

    def list_jobs(self) -> Iterator[Job]:
        return self._pages("/jobs")

    def cancel(self, job_id: str, force: bool = False) -> Job:
        """Requests the end of a job; `force` gives it no time to save. The job becomes "cancelled" once all its
        processes are gone."""
        return self._json("POST", f"/jobs/{_part(job_id)}/cancel", params={"force": "true"} if force else {})

    def pause(self, job_id: str) -> Job:
        """Requests that a job saves and stops; it becomes "paused" once its devices are free."""
        return self._json("POST", f"/jobs/{_part(job_id)}/pause")

    def resume(self, job_id: str) -> Job:
        """Queues a paused job again; it continues from its last training checkpoint."""
        return self._json("POST", f"/jobs/{_part(job_id)}/resume")

    def retry(self, job_id: str) -> Job:
        """Queues a failed or cancelled job again; it continues from its last training checkpoint."""
        return self._json("POST", f"/jobs/{_part(job_id)}/retry")

    def delete_job(self, job_id: str) -> None:
        """Deletes a job that has ended, with its artifacts and everything else that it has left."""
        self._request("DELETE", f"/jobs/{_part(job_id)}")

    def events(self, job_id: str, reconnecting: Callable[[str], None] = lambda note: None) -> Iterator[JobEvent]:
        """Yields every event of a job once, from its start until it has ended.

        Reconnects when the connection breaks, and calls `reconnecting` with a line about it; raises Unreachable once
        that has failed for half a minute.
        """
        return events.follow(self._http, f"/jobs/{_part(job_id)}/events", reconnecting)

    def get_metrics(self, job_id: str) -> dict[str, Any]:
        """Gives the training metrics by column: {"columns": {"step": [...], "loss": [...], ...}, ...}."""
        return self._json("GET", f"/jobs/{_part(job_id)}/metrics")

    def list_samples(self, job_id: str, step: int | None = None) -> list[dict[str, Any]]:
        """Lists the model's answers at the evaluation of `step`, or of the latest one: each has "prompt", "expected"
        and "generated"."""
        params = {} if step is None else {"step": step}
        found: list[dict[str, Any]] = self._json("GET", f"/jobs/{_part(job_id)}/samples", params=params)["data"]
        return found

    # Sweeps

    def create_sweep(self, sweep: dict[str, Any] | bytes, force: bool = False) -> dict[str, Any]:
        """Creates the jobs of a sweep, all or none, from {"recipe": ..., "grid": {"adapter.r": [8, 16]}} or with a
        "list" of the values of each job. Raises Refused with the value that is wrong in `param`."""
        headers = {"content-type": "application/json", "idempotency-key": secrets.token_hex(16)}
        params = {"force": "true"} if force else {}
        # The service may read several datasets first.
        return self._json(
            "POST", "/sweeps", content=_body(sweep), headers=headers, params=params, timeout=_PLAN_SECONDS
        )

    def get_sweep(self, sweep_id: str) -> dict[str, Any]:
        """Gives a sweep with the results of its "jobs", and the id of the "best"."""
        return self._json("GET", f"/sweeps/{_part(sweep_id)}")

    def list_sweeps(self) -> Iterator[dict[str, Any]]:
        return self._pages("/sweeps")

    def cancel_sweep(self, sweep_id: str, keep: Sequence[str] = ()) -> dict[str, Any]:
        """Requests the end of all jobs of a sweep but those to `keep`."""
        return self._json("POST", f"/sweeps/{_part(sweep_id)}/cancel", params={"keep": list(keep)} if keep else {})

    # Artifacts

    def list_artifacts(self, job_id: str) -> list[dict[str, Any]]:
        """Lists the files that a job has published: each has "name", "kind", "bytes" and "sha256"."""
        found: list[dict[str, Any]] = self._json("GET", f"/jobs/{_part(job_id)}/artifacts")["data"]
        return found

    def read_artifact(self, job_id: str, name: str) -> str:
        """Gives the text of a small artifact, such as "trainer.log"."""
        return self._request("GET", _artifact(job_id, name)).text

    def save_artifact(self, job_id: str, name: str, file: Path) -> None:
        """Downloads an artifact to `file`, which is complete or absent.

        An interrupted download continues, and so does the next call with the same `file`. Raises Damaged when the bytes
        differ from what the service has, and OSError.
        """
        downloads.download(self._http, _artifact(job_id, name), file)

    def download(self, job_id: str, out: Path, best: bool = False) -> Path:
        """Unpacks a job's adapter into a folder in `out`, and gives this folder. `best` takes the checkpoint with the
        lowest evaluation loss. Raises Damaged when the archive cannot be unpacked, and OSError."""
        name = "best" if best else "adapter"
        out.mkdir(parents=True, exist_ok=True)
        archive = out / f".{name}.tar"
        self.save_artifact(job_id, f"{name}.tar", archive)
        try:
            with tempfile.TemporaryDirectory(dir=out, prefix=".download-") as scratch:
                with tarfile.open(archive) as opened:
                    opened.extractall(scratch, filter="data")  # refuses files outside of the folder
                # The best checkpoint is in a folder named after its step.
                (folder,) = Path(scratch).iterdir()
                shutil.copytree(folder, out / name, dirs_exist_ok=True)
        except (tarfile.TarError, EOFError) as error:
            raise Damaged(f"the adapter of job {job_id} cannot be unpacked: {error}") from error
        finally:
            archive.unlink()
        return out / name

    def create_export(self, job_id: str, source: str = "adapter.tar") -> dict[str, Any]:
        """Starts to merge an artifact of a job into its base model; the export has "id", "status" and "artifact".
        A second call gives the same export."""
        return self._json("POST", f"/jobs/{_part(job_id)}/exports", json={"format": "merged", "source": source})

    def get_export(self, job_id: str, export_id: str) -> dict[str, Any]:
        return self._json("GET", f"/jobs/{_part(job_id)}/exports/{_part(export_id)}")

    # Datasets

    def upload_dataset(
        self, file: Path, format: str | None = None, columns: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Uploads a file of examples. `format` and `columns` say how to read its rows; the service detects both when
        they are not given. The service may still check the rows when this returns: see `wait_for_dataset`. Raises
        OSError."""
        fields = {} if format is None else {"format": format}
        if columns:
            fields["columns"] = json.dumps(columns)
        with file.open("rb") as opened:
            form = {"file": (file.name, opened, "application/octet-stream")}
            return self._json("POST", "/datasets", files=form, data=fields, timeout=_UPLOAD_SECONDS)

    def register_dataset(self, reference: dict[str, Any]) -> dict[str, Any]:
        """Adds a dataset from a file on the server, {"path": ...}, or from a hub, {"hub": "org/name", "file": ...}."""
        return self._json("POST", "/datasets", json=reference, timeout=_UPLOAD_SECONDS)

    def wait_for_dataset(self, dataset_id: str) -> dict[str, Any]:
        """Waits until every row has been checked; gives the dataset with its "report"."""
        while (dataset := self.get_dataset(dataset_id))["status"] == "uploaded":
            time.sleep(_POLL_SECONDS)
        return dataset

    def get_dataset(self, dataset_id: str) -> dict[str, Any]:
        return self._json("GET", f"/datasets/{_part(dataset_id)}")

    def list_datasets(self) -> Iterator[dict[str, Any]]:
        return self._pages("/datasets")

    def get_dataset_report(self, dataset_id: str, model: str, **options: Any) -> dict[str, Any]:
        """Measures the examples in tokens of `model`; options are chat_template and max_length."""
        return self._json("GET", f"/datasets/{_part(dataset_id)}/report", params={"model": model, **options})

    def preview_dataset(self, dataset_id: str, model: str, **options: Any) -> dict[str, Any]:
        """Shows rows as `model` sees them, token by token, in "data"; options are limit, offset, chat_template and
        max_length."""
        return self._json("GET", f"/datasets/{_part(dataset_id)}/preview", params={"model": model, **options})

    def delete_dataset(self, dataset_id: str) -> None:
        self._request("DELETE", f"/datasets/{_part(dataset_id)}")

    # Workers, disk, keys and webhooks

    def list_workers(self) -> list[dict[str, Any]]:
        """Lists the workers, each with its "devices" and the jobs on them."""
        found: list[dict[str, Any]] = self._json("GET", "/workers")["data"]
        return found

    def clean_files(self, dry_run: bool = False) -> dict[str, Any]:
        """Deletes what the service's retention settings no longer keep, or with `dry_run` only says what that is:
        "bytes", and in "data" the count and bytes of each kind. Takes an admin's key."""
        return self._json("POST", "/clean", params={"dry_run": "true"} if dry_run else {}, timeout=_CLEAN_SECONDS)

    def create_key(self, owner: str, name: str | None = None, admin: bool = False) -> dict[str, Any]:
        """Creates an API key for `owner`. Only this answer has its "secret"."""
        return self._json("POST", "/keys", json={"owner": owner, "name": name, "admin": admin})

    def list_keys(self) -> Iterator[dict[str, Any]]:
        """Lists all API keys, revoked ones included."""
        return self._pages("/keys")

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        return self._json("DELETE", f"/keys/{_part(key_id)}")

    def create_webhook(self, url: str, events: Sequence[str] = ()) -> dict[str, Any]:
        """Has the service post `events` to `url`; without any, those that end a job. Only this answer has the webhook's
        "secret"."""
        return self._json("POST", "/webhooks", json={"url": url} | ({"events": list(events)} if events else {}))

    def list_webhooks(self) -> Iterator[dict[str, Any]]:
        return self._pages("/webhooks")

    def delete_webhook(self, webhook_id: str) -> None:
        self._json("DELETE", f"/webhooks/{_part(webhook_id)}")

    def test_webhook(self, webhook_id: str) -> dict[str, Any]:
        """Sends a ping to a webhook; gives its delivery, which is still pending."""
        return self._json("POST", f"/webhooks/{_part(webhook_id)}/test")

    def list_deliveries(self, webhook_id: str) -> Iterator[dict[str, Any]]:
        """Lists the messages of a webhook, those that are still to be sent included."""
        return self._pages(f"/webhooks/{_part(webhook_id)}/deliveries")

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        after: dict[str, str] = {}
        while True:
            page = self._json("GET", path, params={"limit": "100"} | after)
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["data"][-1]["id"]}

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._request(method, path, **options).json()
        return answer

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unreachable(self.url, error) from error
        raise_for_error(response)
        return response


def _body(recipe: dict[str, Any] | bytes) -> bytes:
    return recipe if isinstance(recipe, bytes) else json.dumps(recipe).encode()


def _part(value: str) -> str:
    return quote(value, safe="")


def _artifact(job_id: str, name: str) -> str:
    return f"/jobs/{_part(job_id)}/artifacts/{_part(name)}"
