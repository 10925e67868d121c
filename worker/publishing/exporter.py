"""Makes the exports that wait: claims one, has the merger make it under a guard, and takes the result into the storage.

It needs no device: the merger computes on the CPU, and sees no GPU.
"""

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import ValidationError
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from contract.failure import Failure, FailureCode, InputError
from contract.locate import locate_model
from contract.recipe import Adapter, Recipe
from contract.run_dir import RunDir
from storage.backends import Folder, Storage
from storage.errors import StorageUnavailable
from store import artifacts, exports
from store.earlier_adapter import folder_of
from store.jobs import jobs
from store.models import Artifact, Export
from store.session import Sessions
from worker.attempt.outcome import failure_of
from worker.publishing import upload
from worker.retry import persist
from worker.run_output import read_error, read_log_tail
from worker.settings import WorkerSettings
from worker.supervise import process

log = logging.getLogger(__name__)

T = TypeVar("T")

_TICK = 0.2
_HEARTBEAT = 1.0
"""Seconds between two renewals of the lease."""


def export_next(
    sessions: Sessions, settings: WorkerSettings, storage: Storage, stopping: Callable[[], bool]
) -> Export | None:
    """Makes the export whose turn it is, whatever becomes of it; None where none waits. Raises OperationalError where
    the database is away."""
    with sessions.begin() as session:
        export = exports.claim(session, settings.worker, settings.lease)
    if export is None:
        return None
    run = RunDir(settings.runs / exports.folder(export))
    try:
        with _leased(sessions, settings, export) as lost:
            _make(sessions, settings, storage, export, run, lambda: lost() or stopping())
    except _Stopped:
        log.info("export %s is left to another worker", export.id)
        persist(sessions, export.id, lambda session: exports.give_back(session, export.id, export.attempt))
    except _Failed as failed:
        failure = failed.failure
        persist(sessions, export.id, lambda session: exports.fail(session, export.id, export.attempt, failure))
    finally:
        if storage.remote:
            shutil.rmtree(run.merged, ignore_errors=True)
    return export


class _Stopped(Exception):
    """The worker ends, or the lease is another's."""


class _Failed(Exception):
    def __init__(self, failure: Failure) -> None:
        self.failure = failure


def _make(
    sessions: Sessions,
    settings: WorkerSettings,
    storage: Storage,
    export: Export,
    run: RunDir,
    is_over: Callable[[], bool],
) -> None:
    artifact = exports.merged(export)
    try:
        _patiently(lambda: _lay_out(sessions, settings, storage, export, run), export, is_over)
        _merge(settings, run, is_over)
        digests = _patiently(lambda: upload.put(storage, Folder(settings.home), artifact), export, is_over)
    except InputError as error:
        raise _Failed(error.failure) from error
    except ValidationError as error:
        message = "the job's recipe is of another release of this service"
        raise _Failed(Failure(code=FailureCode.RECIPE_INVALID, message=message)) from error
    except OSError as error:
        message = f"the worker failed, and its log says more: {error}"
        raise _Failed(Failure(code=FailureCode.WORKER_FAILED, message=message)) from error
    persist(sessions, export.id, lambda session: exports.succeed(session, export.id, export.attempt, artifact, digests))


def _patiently(work: Callable[[], T], export: Export, is_over: Callable[[], bool]) -> T:
    """As long as the storage is away. Raises _Stopped."""
    while True:
        try:
            return work()
        except StorageUnavailable as error:
            log.warning("export %s waits: %s", export.id, error)
            if is_over():
                raise _Stopped from error
            time.sleep(_HEARTBEAT)


def _lay_out(sessions: Sessions, settings: WorkerSettings, storage: Storage, export: Export, run: RunDir) -> None:
    """Raises InputError where the model or the adapter has gone, StorageUnavailable."""

    def read(session: Session) -> tuple[Recipe, Artifact]:
        job = jobs.get(session, export.job_id)
        return Recipe.model_validate(job.recipe), artifacts.get(session, job.id, export.source)

    recipe, source = persist(sessions, export.id, read)
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        adapter = folder_of(source, Folder(settings.home), storage, run.path / "adapter")
    except FileNotFoundError as error:
        message = f"the files of {export.source} are no longer on the server"
        raise InputError(FailureCode.RECIPE_INVALID, message, "source") from error
    model = locate_model(recipe.model, settings.folders)
    resolved = recipe.model_copy(
        update={
            "model": str(model) if model else recipe.model,
            "adapter": Adapter(start_from=str(adapter)),
        }
    )
    run.recipe.write_text(resolved.model_dump_json(indent=2))


def _merge(settings: WorkerSettings, run: RunDir, is_over: Callable[[], bool]) -> None:
    """Raises _Failed, _Stopped; no process of it is left then."""
    command = [*(settings.merger or [sys.executable, "-m", "trainer.tools.merge"]), str(run.path)]
    environment = {"CUDA_VISIBLE_DEVICES": ""}
    merger = process.start(command, run.path, run.log, settings.grace, environment, run.exit_report)
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
def _leased(sessions: Sessions, settings: WorkerSettings, export: Export) -> Iterator[Callable[[], bool]]:
    """Renews the lease meanwhile, by a thread: a large model is long in the making, and in the upload. Gives whether it
    is lost."""
    done, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not done.wait(_HEARTBEAT):
            try:
                with sessions.begin() as session:
                    if not exports.renew(session, export.id, export.attempt, settings.lease):
                        lost.set()
                        return
            except OperationalError as error:
                log.warning("export %s: the database is away: %s", export.id, error)

    thread = threading.Thread(target=renew, name=f"lease of {export.id}", daemon=True)
    thread.start()
    try:
        yield lost.is_set
    finally:
        done.set()
        thread.join()
