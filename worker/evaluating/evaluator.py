"""Works through evaluations: claims one, has an inference server of its base model evaluate the examples, and keeps
each as a row. It needs no device itself: the server leases one, as for chat, and makes room for training jobs.

Whatever breaks off, the server, this process or its worker, the evaluation goes back to the queue and continues after
its last row.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO, TypeVar

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contract.evaluation import EvaluatedExample, EvaluationEnd, EvaluationLine, EvaluationRequest
from contract.failure import Failure, FailureCode, InputError
from contract.inference import Refusal
from contract.recipe import DatasetSource
from runtime.retry import until_available
from storage import folder_cache
from storage.backends import FolderStorage, Storage
from storage.errors import StorageUnavailable
from store import artifacts, datasets, evaluations
from store.earlier_adapter import folder_of
from store.errors import ArtifactNotFound, JobNotFound
from store.models import InferenceServer, Job, JobEvaluation
from store.scheduling import inference
from store.session import Sessions
from worker.evaluating.scores import row_of, scores_of
from worker.evaluating.server_lines import BrokenOff, NotThere, read_lines
from worker.publishing import upload
from worker.publishing.lease import leased
from worker.settings import WorkerSettings
from worker.transaction import run_transaction

log = logging.getLogger(__name__)

T = TypeVar("T")

_SHORT_PAUSE = timedelta(seconds=1)
"""Until a server that was just requested has a device, and until it has started."""
_LONGEST_WAIT_FOR_DEVICE = timedelta(seconds=5)
"""From then on it is looked for less often."""
_PAGE = 200
_SECONDS_BETWEEN_USES = 2.0
"""With the seconds between two lines it is less than what a server is spared for."""


class _Over(Exception):
    """The worker is to stop, or the lease is lost."""


class _Waits(Exception):
    """It cannot go on now."""

    def __init__(self, why: str, is_break: bool) -> None:
        super().__init__(why)
        self.is_break = is_break


class _Unable(Exception):
    def __init__(self, failure: Failure) -> None:
        self.failure = failure


@dataclass(frozen=True)
class Evaluator:
    """Works through evaluations for one worker."""

    sessions: Sessions
    settings: WorkerSettings
    storage: Storage
    stopping: Callable[[], bool]

    def evaluate_next(self) -> JobEvaluation | None:
        """Goes on with the evaluation whose turn it is, to its end or until it breaks off; None if none waits. One
        without a server is put off, which is no attempt. Raises OperationalError while the database is unavailable."""
        with self.sessions.begin() as session:
            found = evaluations.next_due(session)
            if found is None:
                return None
            server = _server_for(session, found)
            if server is None:
                return found
            evaluations.claim(session, found, self.settings.worker, self.settings.lease)
        attempt = _Attempt(self.sessions, self.settings, self.storage, found, server)
        try:
            with leased(self.sessions, attempt.name, attempt.renew) as lost, _failures():
                attempt.run(lambda: lost() or self.stopping())
        except _Over:
            attempt.requeue(None, is_break=False)
        except _Waits as waits:
            attempt.requeue(str(waits), waits.is_break)
        except _Unable as failed:
            attempt.fail(failed.failure)
        return found


def _server_for(session: Session, evaluation: JobEvaluation) -> InferenceServer | None:
    """The server of its base model, which is ready. None where the evaluation was put off or has failed instead."""
    base = str(session.get_one(Job, evaluation.job_id).recipe["model"])
    server = inference.want(session, base, background=True)
    if server.state == "ready":
        return server
    if server.state == "failed":
        _put_off_failed(session, evaluation, server)
    elif server.state == "wanted" and _age(session, server) > _LONGEST_WAIT_FOR_DEVICE:
        why = f"no device is free to evaluate with {base}; jobs or other models use them, or no worker runs"
        evaluations.put_off(evaluation, f"{why} inference servers", evaluations.PAUSE)
    else:
        evaluations.put_off(evaluation, None, _SHORT_PAUSE)
    return None


def _age(session: Session, server: InferenceServer) -> timedelta:
    """Time since its last state began, by the database's clock."""
    return session.execute(select(func.now())).scalar_one() - server.changed_at


def _put_off_failed(session: Session, evaluation: JobEvaluation, server: InferenceServer) -> None:
    """Until the server, which could not start, is tried again. Each failed start is a break."""
    failure = Failure.model_validate(server.failure)
    if failure.code.retryable or failure.code in (FailureCode.OUT_OF_MEMORY, FailureCode.INTERNAL_ERROR):
        why = f"{server.base} cannot be loaded now: {failure.message}"
        evaluations.put_off_broken(session, evaluation, why, inference.FAILED)
    else:
        evaluations.fail_locked(session, evaluation, failure)


@contextmanager
def _failures() -> Iterator[None]:
    """Turns the errors that an evaluation can meet into _Unable and _Waits."""
    try:
        yield
    except InputError as error:
        raise _Unable(error.failure) from error
    except (ArtifactNotFound, JobNotFound) as error:  # deleted since it was requested
        raise _Unable(Failure(code=FailureCode.RECIPE_INVALID, message=str(error), param="checkpoint")) from error
    except StorageUnavailable as error:
        raise _Waits(f"the storage is unavailable: {error}", is_break=False) from error
    except ValidationError as error:
        message = "the evaluation is of another release of this service"
        raise _Unable(Failure(code=FailureCode.RECIPE_INVALID, message=message)) from error
    except OSError as error:
        raise _Waits(f"the worker failed: {error}", is_break=True) from error


@dataclass(frozen=True)
class _Attempt:
    sessions: Sessions
    settings: WorkerSettings
    storage: Storage
    evaluation: JobEvaluation
    server: InferenceServer

    @property
    def name(self) -> str:
        return f"evaluation {self.evaluation.id}"

    def renew(self, session: Session) -> bool:
        return evaluations.renew(session, self.evaluation.id, self.evaluation.attempt, self.settings.lease)

    def requeue(self, waits: str | None, is_break: bool) -> None:
        log.info("%s goes back to the queue: %s", self.name, waits or "its worker stops")
        its = self.evaluation
        self._transact(lambda session: evaluations.requeue(session, its.id, its.attempt, waits, is_break))

    def fail(self, failure: Failure) -> None:
        its = self.evaluation
        self._transact(lambda session: evaluations.fail(session, its.id, its.attempt, failure))

    def run(self, is_over: Callable[[], bool]) -> None:
        """Raises _Over, _Waits, _Unable, and what _failures knows."""
        adapter = self._find_adapter()
        given = DatasetSource.model_validate(self.evaluation.dataset)
        with datasets.find_file(self.sessions, self.settings, given.path) as path:
            source = given.model_copy(update={"path": str(path)})
            request = EvaluationRequest(
                adapter=str(adapter), dataset=source, after=self.evaluation.done, **self.evaluation.settings
            )
            log.info("%s goes on after example %s, on server %s", self.name, request.after, self.server.id)
            end = self._keep_rows(request, is_over)
        self._publish(end, is_over)

    def _find_adapter(self) -> Path:
        """Its folder. Raises JobNotFound, ArtifactNotFound, StorageUnavailable."""
        its = self.evaluation
        source = self._transact(lambda session: artifacts.get(session, its.job_id, its.source))
        cache, home = self.settings.fetched_adapters, FolderStorage(self.settings.home)
        fetched = cache / artifacts.key(source)
        if folder_cache.use(fetched):
            return fetched
        try:
            with folder_cache.adding(cache, fetched) as beside:
                folder = folder_of(source, home, self.storage, beside)
        except FileNotFoundError as error:
            raise ArtifactNotFound(source.job_id, source.name, " any more: its files are gone") from error
        return fetched if folder == beside else folder

    def _keep_rows(self, request: EvaluationRequest, is_over: Callable[[], bool]) -> EvaluationEnd:
        """Raises _Over, _Waits, _Unable."""
        used, server = time.monotonic(), self.server
        try:
            for line in read_lines(server, request):
                if is_over() or not self._keep(line):
                    raise _Over
                if time.monotonic() - used >= _SECONDS_BETWEEN_USES:
                    used = time.monotonic()
                    self._transact(lambda session: inference.use(session, server.id, background=True))
                    self._use_adapter(Path(request.adapter))
                if isinstance(line, EvaluationEnd):
                    return line
        except (NotThere, BrokenOff) as error:
            is_break = isinstance(error, BrokenOff) and self._crashed(server)
            raise _Waits(f"the inference server of {server.base} is gone: {error}", is_break) from error
        raise AssertionError("the last line is an EvaluationEnd or a Refusal")

    def _use_adapter(self, folder: Path) -> None:
        """Keeps it in the cache, should it come from there: the server may load it again. Raises _Waits."""
        if folder.is_relative_to(self.settings.fetched_adapters) and not folder_cache.use(folder):
            raise _Waits("its adapter is no longer in the worker's cache, and is fetched again", is_break=False)

    def _keep(self, line: EvaluationLine) -> bool:
        """False where the attempt has lost its lease. Raises _Waits, _Unable."""
        if isinstance(line, Refusal):
            raise _why_refused(line)
        if not isinstance(line, EvaluatedExample):
            return True
        its, row = self.evaluation, row_of(line)
        return self._transact(lambda session: evaluations.add_row(session, its.id, its.attempt, line.number, row))

    def _crashed(self, server: InferenceServer) -> bool:
        """Whether it ended by itself. One that makes room for a job is no fault of the evaluation."""
        found = self._transact(lambda session: session.get(InferenceServer, server.id))
        return found is None or found.state != "stopping"

    def _publish(self, end: EvaluationEnd, is_over: Callable[[], bool]) -> None:
        """Raises StorageUnavailable once it is over, OSError."""
        its, made = self.evaluation, evaluations.artifact(self.evaluation)
        file = self.settings.runs / made.path
        retry = until_available(self.name, StorageUnavailable, gives_up=is_over)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("w") as out:
                scores = scores_of(self._written(out))
            digests = retry(lambda: upload.put(self.storage, FolderStorage(self.settings.home), made))
        except (StorageUnavailable, OSError):
            self._transact(lambda session: evaluations.delete_files(session, its))  # the next attempt has its own
            raise
        succeeded = self._transact(lambda session: evaluations.succeed(session, its, scores, end.dropped, digests))
        if succeeded and self.storage.remote:
            shutil.rmtree(file.parent)

    def _written(self, out: TextIO) -> Iterator[dict[str, Any]]:
        """All rows, each once it is written. A page of them is in memory at once."""
        page = self._page(after=0)
        while page:
            for row in page:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
                yield row
            page = self._page(after=page[-1]["number"])

    def _page(self, after: int) -> list[dict[str, Any]]:
        its = self.evaluation.id
        return self._transact(lambda session: [row.data for row in evaluations.list_rows(session, its, _PAGE, after)])

    def _transact(self, work: Callable[[Session], T]) -> T:
        return run_transaction(self.sessions, self.name, work)


def _why_refused(refusal: Refusal) -> Exception:
    if refusal.retry:
        return _Waits(refusal.message, is_break=refusal.code == "answer_failed")
    codes = {code.value for code in FailureCode}
    code = FailureCode(refusal.code) if refusal.code in codes else FailureCode.RECIPE_INVALID
    param = "max_new_tokens" if refusal.param == "max_tokens" else refusal.param
    return _Unable(Failure(code=code, message=refusal.message, param=param))
