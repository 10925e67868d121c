"""Makes exports: claims one, has the merger make it under a guard, and uploads the result.

It needs no device: the merger computes on the CPU and sees no GPU.
"""

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from contract.failure import Failure, FailureCode, InputError
from contract.locate import locate_model
from contract.recipe import Adapter, Recipe
from contract.run_dir import RunDir
from runtime.retry import until_available
from storage.backends import FolderStorage, Storage
from storage.errors import StorageUnavailable
from store import artifacts, exports
from store.earlier_adapter import folder_of
from store.errors import ArtifactNotFound, JobNotFound
from store.jobs import jobs
from store.models import Artifact, Export
from store.session import Sessions
from worker.attempt.outcome import failure_of
from worker.publishing import upload
from worker.run_output import read_error, read_log_tail
from worker.settings import WorkerSettings
from worker.supervise import process
from worker.supervise.process import Workspace
from worker.transaction import run_transaction

log = logging.getLogger(__name__)

T = TypeVar("T")

_TICK = 0.2
_HEARTBEAT = 1.0
"""Seconds between two renewals of the lease."""


class _Stopped(Exception):
    """The worker is to stop, or the lease is lost."""


class _Failed(Exception):
    def __init__(self, failure: Failure) -> None:
        self.failure = failure


@dataclass(frozen=True)
class Exporter:
    """Makes the exports of one worker."""

    sessions: Sessions
    settings: WorkerSettings
    storage: Storage
    stopping: Callable[[], bool]

    def export_next(self) -> Export | None:
        """Makes the next export, and records whether it succeeds or fails; None if none waits.

        Raises OperationalError while the database is unavailable.
        """
        with self.sessions.begin() as session:
            export = exports.claim(session, self.settings.worker, self.settings.lease)
        if export is None:
            return None
        run = RunDir(self.settings.runs / exports.folder(export))
        try:
            with _leased(self.sessions, export, self.settings) as lost:
                self._make(export, run, lambda: lost() or self.stopping())
        except _Stopped:
            log.info("export %s is returned to the queue", export.id)
            self._transact(export, lambda session: exports.requeue(session, export.id, export.attempt))
        except _Failed as failed:
            failure = failed.failure
            self._transact(export, lambda session: exports.fail(session, export.id, export.attempt, failure))
        finally:
            if self.storage.remote:
                shutil.rmtree(run.merged, ignore_errors=True)
        return export

    def _make(self, export: Export, run: RunDir, is_over: Callable[[], bool]) -> None:
        """Raises _Failed, _Stopped."""
        artifact, home = exports.merged(export), FolderStorage(self.settings.home)
        with _failures():
            _retry(lambda: self._lay_out(export, run), export, is_over)
            _merge(self.settings, run, is_over)
            digests = _retry(lambda: upload.put(self.storage, home, artifact), export, is_over)
        self._transact(export, lambda session: exports.succeed(session, export.id, export.attempt, artifact, digests))

    def _lay_out(self, export: Export, run: RunDir) -> None:
        """Writes the merger's recipe. Raises InputError if the model or the adapter is gone, StorageUnavailable."""

        def read(session: Session) -> tuple[Recipe, Artifact]:
            job = jobs.get(session, export.job_id)
            return Recipe.model_validate(job.recipe), artifacts.get(session, job.id, export.source)

        try:
            recipe, source = self._transact(export, read)
        except (JobNotFound, ArtifactNotFound) as error:  # deleted since the export was requested
            raise InputError(FailureCode.RECIPE_INVALID, str(error), "source") from error
        run.path.mkdir(parents=True, exist_ok=True)
        try:
            adapter = folder_of(source, FolderStorage(self.settings.home), self.storage, run.path / "adapter")
        except FileNotFoundError as error:
            message = f"the files of {export.source} are no longer on the server"
            raise InputError(FailureCode.RECIPE_INVALID, message, "source") from error
        model = locate_model(recipe.model, self.settings.folders)
        inputs = {"model": str(model) if model else recipe.model, "adapter": Adapter(start_from=str(adapter))}
        run.recipe.write_text(recipe.model_copy(update=inputs).model_dump_json(indent=2))

    def _transact(self, export: Export, work: Callable[[Session], T]) -> T:
        return run_transaction(self.sessions, f"export {export.id}", work)


@contextmanager
def _failures() -> Iterator[None]:
    """Turns the errors that an export can meet into _Failed."""
    try:
        yield
    except InputError as error:
        raise _Failed(error.failure) from error
    except ValidationError as error:
        message = "the job's recipe is of another release of this service"
        raise _Failed(Failure(code=FailureCode.RECIPE_INVALID, message=message)) from error
    except OSError as error:
        message = f"the worker failed, and its log says more: {error}"
        raise _Failed(Failure(code=FailureCode.WORKER_FAILED, message=message)) from error


def _retry(work: Callable[[], T], export: Export, is_over: Callable[[], bool]) -> T:
    """Retries while the storage is unavailable. Raises _Stopped."""
    try:
        return until_available(f"export {export.id}", StorageUnavailable, gives_up=is_over)(work)
    except StorageUnavailable as error:
        raise _Stopped from error


def _merge(settings: WorkerSettings, run: RunDir, is_over: Callable[[], bool]) -> None:
    """Runs the merger. Raises _Failed, _Stopped; no process of it is left then."""
    command = [*(settings.merger or [sys.executable, "-m", "trainer.tools.merge"]), str(run.path)]
    workspace = Workspace(run.path, run.log, run.exit_report)
    merger = process.start(command, workspace, settings.grace, {"CUDA_VISIBLE_DEVICES": ""})
    try:
        while merger.poll() is None:
            if is_over():
                merger.kill()
                raise _Stopped
            time.sleep(_TICK)
    finally:
        merger.stop()
        exit_code = merger.wait()
    if exit_code != 0 or not run.merged.is_dir():
        raise _Failed(failure_of(exit_code, read_error(run), read_log_tail(run.log)))


@contextmanager
def _leased(sessions: Sessions, export: Export, settings: WorkerSettings) -> Iterator[Callable[[], bool]]:
    """Renews the lease in a thread: merging and uploading a large model take long. Yields whether the lease is lost."""
    done, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not done.wait(_HEARTBEAT):
            try:
                with sessions.begin() as session:
                    if not exports.renew(session, export.id, export.attempt, settings.lease):
                        lost.set()
                        return
            except OperationalError as error:
                log.warning("export %s: the database is unavailable: %s", export.id, error)

    thread = threading.Thread(target=renew, name=f"lease of {export.id}", daemon=True)
    thread.start()
    try:
        yield lost.is_set
    finally:
        done.set()
        thread.join()
