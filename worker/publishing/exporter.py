"""Makes exports: claims one, has a process make it under a guard, adds a model card, and uploads the result.

It needs no device: that process computes on the CPU and sees no GPU.
"""

import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from sqlalchemy.orm import Session

from contract.export import ExportSpec
from contract.failure import Failure, FailureCode, InputError
from contract.locate import locate_model, public_name
from contract.recipe import Adapter, Recipe
from contract.run_dir import RunDir, partial_path
from runtime.retry import until_available
from storage.backends import FolderStorage, Storage
from storage.errors import StorageUnavailable
from store import artifacts, exports
from store.artifacts import REPORT
from store.earlier_adapter import first_init, folder_of
from store.errors import ArtifactNotFound, JobNotFound
from store.jobs import jobs
from store.jobs.job_report import gather
from store.models import Artifact, Export
from store.session import Sessions
from worker.attempt.outcome import failure_of
from worker.publishing import report_files, upload
from worker.publishing.how_to_load import load_export
from worker.publishing.lease import leased
from worker.run_output import read_error, read_log_tail
from worker.settings import WorkerSettings
from worker.supervise import process
from worker.supervise.process import Workspace
from worker.transaction import run_transaction

log = logging.getLogger(__name__)

T = TypeVar("T")

_TICK = 0.2


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
        run, succeeded = RunDir(self.settings.runs / exports.folder(export)), False
        try:
            with leased(self.sessions, f"export {export.id}", self._renewal(export)) as lost:
                succeeded = self._make(export, run, lambda: lost() or self.stopping())
        except _Stopped:
            log.info("export %s is returned to the queue", export.id)
            self._transact(export, lambda session: exports.requeue(session, export.id, export.attempt))
        except _Failed as failed:
            failure = failed.failure
            self._transact(export, lambda session: exports.fail(session, export.id, export.attempt, failure))
        finally:
            _remove_large(run, keep_exported=succeeded and not self.storage.remote)
        return export

    def _renewal(self, export: Export) -> Callable[[Session], bool]:
        return lambda session: exports.renew(session, export.id, export.attempt, self.settings.lease)

    def _make(self, export: Export, run: RunDir, is_over: Callable[[], bool]) -> bool:
        """False where the attempt has lost its lease. Raises _Failed, _Stopped."""
        artifact, home = exports.artifact(export), FolderStorage(self.settings.home)
        with _failures():
            spec = _retry(lambda: self._lay_out(export, run), export, is_over)
            _run_exporter(self.settings, run, is_over)
            self._add_card(export, spec, run.exported)
            digests = _retry(lambda: upload.put(self.storage, home, artifact), export, is_over)
        return self._transact(
            export, lambda session: exports.succeed(session, export.id, export.attempt, artifact, digests)
        )

    def _lay_out(self, export: Export, run: RunDir) -> ExportSpec:
        """Writes what the process needs. Raises InputError if the model or the adapter is gone, StorageUnavailable."""

        def read(session: Session) -> tuple[Recipe, Artifact, str]:
            job = jobs.get(session, export.job_id)
            source = artifacts.get(session, job.id, export.source)
            return Recipe.model_validate(job.recipe), source, first_init(session, job)

        try:
            recipe, source, init = self._transact(export, read)
        except (JobNotFound, ArtifactNotFound) as error:  # deleted since the export was requested
            raise InputError(FailureCode.RECIPE_INVALID, str(error), "source") from error
        run.path.mkdir(parents=True, exist_ok=True)
        try:
            adapter = folder_of(source, FolderStorage(self.settings.home), self.storage, run.adapter)
        except FileNotFoundError as error:
            message = f"the files of {export.source} are no longer on the server"
            raise InputError(FailureCode.RECIPE_INVALID, message, "source") from error
        model = locate_model(recipe.model, self.settings.folders)
        inputs = {"model": str(model) if model else recipe.model, "adapter": Adapter(start_from=str(adapter))}
        run.recipe.write_text(recipe.model_copy(update=inputs).model_dump_json(indent=2))
        named = {"format": export.format, "base": public_name(recipe.model, model), "init": init}
        spec = ExportSpec.model_validate(named | ({"shard_size": export.shard_size} if export.shard_size else {}))
        run.export_spec.write_text(spec.model_dump_json(indent=2))
        return spec

    def _add_card(self, export: Export, spec: ExportSpec, folder: Path) -> None:
        report = self._transact(export, lambda session: gather(session, export.job_id))
        report_files.write("curve", report, spec.base, folder / REPORT["curve"])
        loading = load_export(spec.format, spec.base, folder)
        (folder / REPORT["card"]).write_text(report_files.card(report, spec.base, loading))

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


def _run_exporter(settings: WorkerSettings, run: RunDir, is_over: Callable[[], bool]) -> None:
    """Raises _Failed, _Stopped; no process is left then."""
    command = [*(settings.exporter or [sys.executable, "-m", "trainer.tools.export"]), str(run.path)]
    workspace = Workspace(run.path, run.log, run.exit_report)
    exporter = process.start(command, workspace, settings.grace, {"CUDA_VISIBLE_DEVICES": ""})
    try:
        while exporter.poll() is None:
            if is_over():
                exporter.kill()
                raise _Stopped
            time.sleep(_TICK)
    finally:
        exporter.stop()
        exit_code = exporter.wait()
    if exit_code != 0 or not run.exported.is_dir():
        raise _Failed(failure_of(exit_code, read_error(run), read_log_tail(run.log)))


def _remove_large(run: RunDir, keep_exported: bool) -> None:
    """Removes the fetched adapter and what was made of the export; the log stays."""
    made = () if keep_exported else (run.exported,)
    for folder in (run.adapter, partial_path(run.exported), *made):
        shutil.rmtree(folder, ignore_errors=True)
