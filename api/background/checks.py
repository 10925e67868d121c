"""Checks each new dataset in the background, so that the response to a large upload does not wait for it, and deletes
expired datasets.

If a process is killed, the next one checks what it left. Several processes may check the same dataset at once; the
first one writes its result.
"""

import logging
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

from api.datasets.reader import dataset_file
from api.datasets.upload import forget_abandoned
from api.settings import ApiSettings
from contract.failure import InputError
from dataset.dataset_report import DatasetReport
from dataset.sandbox.child import DatasetSandbox, SandboxStopped
from dataset.sandbox.tasks import CheckFile
from storage.backends import Storage
from store import datasets
from store.errors import DatasetInUse, DatasetNotFound
from store.session import Sessions

log = logging.getLogger(__name__)

AT_ONCE = 2
SECONDS_BETWEEN_LOOKS = 10.0
FILE_VERSION = "file_version"
LONGEST = 3600.0
"""Most seconds of one check; about 60 MB a second are read."""


class Checks:
    def __init__(self, sessions: Sessions, settings: ApiSettings, storage: Storage, sandbox: DatasetSandbox) -> None:
        self._sessions = sessions
        self._settings = settings
        self._storage = storage
        self._sandbox = sandbox
        self._pool = ThreadPoolExecutor(AT_ONCE, "check")
        self._lock = threading.Lock()
        self._at_work: dict[str, Future[None]] = {}
        self._stopped = threading.Event()
        self._looking = threading.Thread(target=self._look, name="checks", daemon=True)

    def start(self) -> None:
        self._looking.start()

    def stop(self) -> None:
        """Leaves unfinished checks to the next process."""
        self._stopped.set()
        self._sandbox.stop()
        self._pool.shutdown(cancel_futures=True)
        self._looking.join()

    def add(self, dataset_id: str) -> "Future[None]":
        with self._lock:
            if dataset_id not in self._at_work:
                future = self._pool.submit(self._check, dataset_id)
                self._at_work[dataset_id] = future
                future.add_done_callback(lambda _: self._done(dataset_id))
            return self._at_work[dataset_id]

    def wait(self, dataset_id: str, seconds: float) -> None:
        """Waits until the dataset is checked, at most so many seconds."""
        wait_for([self.add(dataset_id)], timeout=seconds)

    def _done(self, dataset_id: str) -> None:
        with self._lock:
            self._at_work.pop(dataset_id, None)

    def _look(self) -> None:
        while not self._stopped.is_set():
            try:
                self.round()
            except Exception:
                log.exception("datasets that are to be checked: the next round will look again")
            self._stopped.wait(SECONDS_BETWEEN_LOOKS)

    def round(self) -> None:
        forget_abandoned(self._settings.incoming)
        with self._sessions.begin() as session:
            found, over = datasets.list_unchecked(session), datasets.list_expired(session)
        for dataset_id in found:
            self.add(dataset_id)
        for dataset_id in over:
            self._delete(dataset_id)

    def _delete(self, dataset_id: str) -> None:
        try:
            with self._sessions.begin() as session:
                sha256 = datasets.remove(session, dataset_id, None)
                if sha256 is not None and datasets.delete_unused_blob(session, self._storage, sha256):
                    (self._settings.fetched_datasets / sha256).unlink(missing_ok=True)
        except (DatasetNotFound, DatasetInUse):
            pass  # another has deleted it, or a job has begun to need it

    def _check(self, dataset_id: str) -> None:
        try:
            self._write(dataset_id, *self._read(dataset_id))
        except (DatasetNotFound, SandboxStopped):
            pass  # it was deleted meanwhile, or the service ends
        except Exception:
            log.exception("dataset %s is not checked; the next round will try again", dataset_id)

    def _read(self, dataset_id: str) -> tuple[str | None, dict[str, Any] | None]:
        """The dataset's problem, if there is one, and its report. The report of a file that stays where it is also has
        the file's version."""
        with self._sessions.begin() as session:
            dataset = datasets.get(session, dataset_id)
        try:
            with datasets.local_file(self._storage, self._settings, dataset) as path:
                version = None if dataset.path is None else file_version(path.stat())
                task = CheckFile(file=dataset_file(dataset, path), max_bytes=self._settings.largest_dataset)
                report = self._sandbox.run(task, LONGEST)
        except InputError as error:
            return error.failure.message, None
        return _problem(report), report.model_dump(mode="json") | ({FILE_VERSION: version} if version else {})

    def _write(self, dataset_id: str, problem: str | None, report: dict[str, Any] | None) -> None:
        with self._sessions.begin() as session:
            datasets.record_check(
                session,
                dataset_id,
                problem,
                report["format"] if report else None,
                report["rows"] if report else None,
                report,
            )


def _problem(report: DatasetReport) -> str | None:
    if not report.errors:
        return None
    first = report.errors[0]
    where = "" if first.row is None else f"row {first.row}: "
    more = f"; and {report.error_count - 1} more" if report.error_count > 1 else ""
    return f"{where}{first.message}{more}"


def file_version(status: os.stat_result) -> str:
    """Changes when the file is written, without reading the file to find out."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"
