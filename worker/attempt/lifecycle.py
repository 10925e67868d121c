"""One attempt at a job: lays out its run folder, trains in it, tells the store, and writes how it ended."""

import errno
import logging
import math
import os
import shlex
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import DataError, OperationalError
from sqlalchemy.orm import Session

from contract.events import Done, Event, Started
from contract.failure import Failure, FailureCode, InputError, told_of
from contract.fault import fault_of
from contract.locate import locate_model
from contract.machine import Machine, check_machine
from contract.out_of_memory import smaller_batch
from contract.recipe import Batch, Recipe
from contract.run_dir import RunDir, forget_states, newest_state
from contract.status import TERMINAL, JobStatus, RequestedAction
from storage.backends import Folder, Storage, make_storage
from storage.errors import StorageUnavailable
from store import artifacts, datasets
from store.earlier_adapter import earlier_adapter
from store.errors import StaleAttempt
from store.jobs import attempts, jobs, progress
from store.jobs.jobs import Part
from store.scheduling import leases, workers
from store.session import Sessions
from worker.attempt import network
from worker.attempt.command import Rendezvous, trainer_command
from worker.attempt.outcome import decide
from worker.attempt.tail import Tail
from worker.machine import devices
from worker.retry import persist
from worker.run_output import read_error, read_exit_report, read_log_tail
from worker.settings import WorkerSettings
from worker.supervise import process

log = logging.getLogger(__name__)

TICK = 0.2  # seconds between two looks at the events
HEARTBEAT = 1.0  # seconds between two renewals of the lease when there is nothing to tell
KEPT_STATES = 2  # of the attempts before
LONGEST_PUBLISHING = 5.0  # seconds that a job which has not succeeded waits until it can be downloaded what it leaves
ALONE = 15.0  # seconds that one machine of several may go on when another has ended: it ends soon by itself
LAST_WORD = 10.0  # seconds from a trainer's last word, when all is saved, to its end; torchrun may wait for others
_AWAY = "the storage of datasets and artifacts does not answer, or refuses; the worker's log says why"

_BUGS = (ArithmeticError, AssertionError, AttributeError, DataError, LookupError, NameError, TypeError, ValueError)
"""What no disk, network or process raises."""

Draining = Callable[[], bool]
"""True once this worker is to end; its jobs go back to the queue."""


@dataclass(frozen=True)
class Attempt:
    sessions: Sessions
    settings: WorkerSettings
    machine: Machine
    part: Part
    draining: Draining

    @property
    def run_dir(self) -> RunDir:
        return RunDir(self.settings.runs / artifacts.run_path(self.part.job_id, self.part.attempt))

    @cached_property
    def storage(self) -> Storage:
        """Made in the process that runs the attempt."""
        return make_storage(self.settings)

    @property
    def earlier(self) -> list[RunDir]:
        """Of the attempts before."""
        numbers = range(1, self.part.attempt)
        return [RunDir(self.settings.runs / artifacts.run_path(self.part.job_id, number)) for number in numbers]

    def persist(self, work: Callable[[Session], Any]) -> Any:
        return persist(self.sessions, f"job {self.part.job_id}", work)


@dataclass
class Told:
    """What a trainer has told of itself so far, and what was asked of it."""

    started: Started | None = None
    done: Done | None = None
    requested_action: RequestedAction | None = None
    spared: bool = False
    """It was told to stop, and not for a fault: as its owner asked, who may have taken that back since, or because a
    worker drains, or has lost the database."""
    left_alone: bool = False
    """It was told to stop because another machine had lost its part of the attempt."""
    untold: list[Event] = field(default_factory=list)


def run(attempt: Attempt) -> None:
    """Trains until the end of the job or of the lease. No database session is held meanwhile."""
    try:
        try:
            with ExitStack() as files:
                recipe = _lay_out(attempt, files)
                end = _train(attempt, recipe)
        except StaleAttempt:
            raise
        except StorageUnavailable as error:
            log.warning(
                "attempt %s at job %s waits for its files: %s", attempt.part.attempt, attempt.part.job_id, error
            )
            end = attempts.End(JobStatus.FAILED, Failure(code=FailureCode.STORAGE_UNAVAILABLE, message=_AWAY))
        except Exception as error:
            log.exception("attempt %s at job %s failed", attempt.part.attempt, attempt.part.job_id)
            end = attempts.End(JobStatus.FAILED, _failure(error), log_tail=read_log_tail(attempt.run_dir.log))
        _finish(attempt, end)
    except StaleAttempt as stale:
        log.warning("%s", stale)
        attempt.persist(lambda session: leases.free(session, *_mine(attempt)))


def _failure(error: Exception) -> Failure:
    if isinstance(error, InputError):
        return error.failure
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Failure(code=FailureCode.DISK_FULL, message=f"the server's disk is full: {error}")
    message = f"the worker failed, and its log says more: {type(error).__name__}: {error}"
    fault = fault_of(error) if isinstance(error, _BUGS) else None
    return Failure(code=FailureCode.WORKER_FAILED, message=message, fault=fault)


def _lay_out(attempt: Attempt, files: ExitStack) -> Recipe:
    """Writes the recipe with its model, dataset and earlier adapter as this machine has them; the dataset stays as long
    as `files` is open. Raises InputError when they have gone, or the recipe is not what this machine can do."""
    settings, run_dir = attempt.settings, attempt.run_dir
    try:
        recipe = Recipe.model_validate(attempt.part.recipe)
    except ValidationError as error:
        message = f"the recipe is of another release of this service; submit it anew: {error.errors()[0]['msg']}"
        raise InputError(FailureCode.RECIPE_INVALID, message) from error
    if attempt.part.batch is not None:
        recipe = recipe.model_copy(update={"batch": Batch.model_validate(attempt.part.batch)})
    check_machine(recipe, attempt.machine)
    run_dir.path.mkdir(parents=True)
    model = locate_model(recipe.model, settings.folders)
    beat = _beating(attempt)
    dataset = files.enter_context(datasets.find_file(attempt.sessions, settings, recipe.dataset.path, beat))
    evaluation = recipe.evaluation
    if evaluation.dataset is not None:
        given = evaluation.dataset
        with told_of("evaluation.dataset"):
            held_out = files.enter_context(datasets.find_file(attempt.sessions, settings, given.path, beat))
        evaluation = evaluation.model_copy(update={"dataset": given.model_copy(update={"path": str(held_out)})})
    adapter = recipe.adapter
    if adapter.start_from is not None:
        fetched = run_dir.path / "start_from"
        home = Folder(settings.home)
        earlier = earlier_adapter(attempt.sessions, attempt.storage, home, adapter.start_from, fetched, beat=beat)
        adapter = adapter.model_copy(update={"start_from": str(earlier)})
    resolved = recipe.model_copy(
        update={
            "model": str(model) if model else recipe.model,
            "dataset": recipe.dataset.model_copy(update={"path": str(dataset)}),
            "evaluation": evaluation,
            "adapter": adapter,
        }
    )
    run_dir.recipe.write_text(resolved.model_dump_json(indent=2))
    return recipe


def _train(attempt: Attempt, recipe: Recipe) -> attempts.End:
    """Follows a trainer to its end. Raises StaleAttempt, and then the trainer has ended too."""
    part, settings, run_dir = attempt.part, attempt.settings, attempt.run_dir
    # After the choice of the state: all the steps that it holds had been told before it was saved.
    state = _resume(attempt)
    if _catch_up(attempt, state):
        return attempts.End(JobStatus.SUCCEEDED)
    endpoint = None if recipe.resources.nodes == 1 else f"{settings.address}:{_free_port(settings.address)}"
    meeting = rendezvous(settings, part, recipe, endpoint) if endpoint else None
    command = trainer_command(settings, recipe, run_dir.path, state, meeting)
    told_command = shlex.join(command)
    attempt.persist(
        lambda session: jobs.launch(session, part.job_id, part.attempt, told_command, settings.lease, endpoint)
    )
    environment = process.marks(settings.worker, run_dir.path) | devices.environment(attempt.machine, part.devices)
    if meeting is not None:
        environment |= network.environment(settings.address, os.environ)
    trainer = process.start(command, run_dir.path, run_dir.log, settings.grace, environment, run_dir.exit_report)
    told = Told()
    before: dict[int, int] = {}
    try:
        _follow(attempt, recipe, trainer, told, before)
    finally:
        trainer.stop()
        exit_code = trainer.wait()
    outcome = decide(
        exit_code,
        told.done,
        read_error(run_dir),
        told.requested_action,
        told.spared,
        log_tail := read_log_tail(run_dir.log),
    )
    status, failure = outcome.status, outcome.failure
    if told.left_alone and status is JobStatus.QUEUED:
        # It has saved. But it counts, and the next attempt waits: the other machine may lose its part each time.
        message = "another machine lost its part of the attempt; the worker's log there says more"
        status, failure = JobStatus.FAILED, Failure(code=FailureCode.WORKER_LOST, message=message)
    return attempts.End(
        status,
        failure,
        smaller=_smaller(recipe, failure, told.started),
        log_tail=log_tail,
        exit_report=_exit_report(run_dir.exit_report, before, devices.memory_used(attempt.machine, part.devices)),
    )


def rendezvous(settings: WorkerSettings, part: Part, recipe: Recipe, endpoint: str) -> Rendezvous:
    """At which this machine meets the others of the attempt; the head's hosts it."""
    name = f"{part.job_id}-{part.attempt}"
    return Rendezvous(recipe.resources.nodes, endpoint, name, settings.address, head=part.rank == 0)


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])


def _resume(attempt: Attempt) -> Path | None:
    """Where to go on: the furthest state of the attempts before that is whole."""
    beat = _beating(attempt)
    for run in attempt.earlier:
        if run.path.is_dir():
            run.superseded.touch()
    state, damaged = newest_state(attempt.earlier, beat)
    for path in damaged:
        message = f"the state {path.parent.parent.name}/{path.name} is damaged; the run goes on from an earlier one"
        attempt.persist(partial(_warn, attempt.part.job_id, message))
    forget_states(attempt.earlier, KEPT_STATES, beat)
    return state


def _beating(attempt: Attempt) -> Callable[[], None]:
    """Renews the lease when it is called, once a heartbeat at most: for work that may take longer than a lease. It
    raises StaleAttempt."""
    part, lease = attempt.part, attempt.settings.lease
    last = -math.inf

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last >= HEARTBEAT:
            attempt.persist(lambda session: jobs.renew(session, part.job_id, part.attempt, lease))
            last = time.monotonic()

    return beat


def _warn(job_id: str, message: str, session: Session) -> None:
    jobs.tell(session, jobs.get(session, job_id), "log", {"level": "warning", "message": message})


def _catch_up(attempt: Attempt, state: Path | None) -> bool:
    """A trainer goes on for a moment after its worker is lost: what it told then, and saved, is told now. Whether it
    had come to the job's end.

    It may have done so while later attempts came and were lost: what the one that saved `state` told is told last.
    """
    told = {number: run for number, run in enumerate(attempt.earlier, start=1) if run.events.exists()}
    saved = [number for number, run in told.items() if state is not None and state.is_relative_to(run.path)]
    return any(_tell_anew(attempt, number, told[number]) for number in dict.fromkeys([*list(told)[-1:], *saved]))


def _tell_anew(attempt: Attempt, number: int, run: RunDir) -> bool:
    """All that an attempt before has told. Whether it had come to the job's end."""
    tail = Tail(run.events)
    completed = False
    while batch := tail.read():
        attempt.persist(partial(_tell_of, attempt, number, batch))
        completed = any(isinstance(event, Done) and event.completed for event in batch)
    return completed


def _tell_of(attempt: Attempt, number: int, batch: list[Event], session: Session) -> None:
    part = attempt.part
    progress.catch_up(session, part.job_id, part.attempt, number, batch, attempt.settings.lease)


def _follow(attempt: Attempt, recipe: Recipe, trainer: process.Trainer, told: Told, before: dict[int, int]) -> None:
    """Tells the store of the trainer, and the trainer of the requested action, until it has ended and all is told."""
    part, settings = attempt.part, attempt.settings
    tail = Tail(attempt.run_dir.events)
    asked: set[str] = set()
    next_beat = heard = time.monotonic()
    missing = last_word = math.inf
    others_drain = False
    while True:
        ended = trainer.poll() is not None
        new = tail.read()
        told.untold += new
        for event in new:
            told.started = event if isinstance(event, Started) else told.started
            told.done = event if isinstance(event, Done) else told.done
        now = time.monotonic()
        last_word = min(last_word, now) if told.done else math.inf
        if told.untold or ended or now >= next_beat:
            try:
                with attempt.sessions.begin() as session:
                    told.requested_action = progress.record(
                        session, part.job_id, part.attempt, told.untold, settings.lease
                    )
                    if recipe.resources.nodes == 1 or len(_gang(session, attempt)) == recipe.resources.nodes:
                        missing = math.inf
                    else:
                        missing = min(missing, now)
                        others_drain = bool(_machines(session, attempt) & workers.draining(session))
                told.untold.clear()
                heard, next_beat = now, now + HEARTBEAT
            except OperationalError as error:
                log.warning("job %s: the database is away, its events wait: %s", part.job_id, error)
                next_beat = now + HEARTBEAT
        if ended and not new and not told.untold:
            return
        # Of several machines one that has lost the others trains no further, and may not notice.
        alone = heard - missing > ALONE
        told.spared |= told.requested_action is not None or attempt.draining() or others_drain
        told.spared |= now - heard > settings.cut_off.total_seconds()
        if not asked and (told.spared or alone):
            told.left_alone = not told.spared
            before |= devices.memory_used(attempt.machine, part.devices)
            trainer.stop()
            asked.add("stop")
        if (
            told.requested_action is RequestedAction.FORCE_CANCEL or now - last_word > LAST_WORD
        ) and "kill" not in asked:
            trainer.kill()
            asked.add("kill")
        time.sleep(TICK)


def _gang(session: Session, attempt: Attempt) -> set[str]:
    """The machines that have a process of the attempt, as far as they are heard of and go on."""
    return _machines(session, attempt) & (workers.heard(session) - workers.draining(session))


def _machines(session: Session, attempt: Attempt) -> set[str]:
    return leases.machines(session, attempt.part.job_id, attempt.part.attempt)


def _exit_report(path: Path, before: dict[int, int], after: dict[int, int]) -> dict[str, Any] | None:
    exit_report = read_exit_report(path)
    if exit_report is None:
        return None
    return exit_report.model_copy(update={"memory_before": before, "memory_after": after}).model_dump(mode="json")


def _smaller(recipe: Recipe, failure: Failure | None, started: Started | None) -> Batch | None:
    if failure is None or failure.code is not FailureCode.OUT_OF_MEMORY or started is None:
        return None
    return smaller_batch(recipe.batch, started)


def _finish(attempt: Attempt, end: attempts.End) -> None:
    """Writes how it ended, however long the database is away, once no machine has a process of it and what it has saved
    can be downloaded. Raises StaleAttempt."""
    part, run_dir = attempt.part, attempt.run_dir

    def others_are_gone(session: Session) -> bool:
        job = jobs.part_with_the_others(session, part.job_id, part.attempt, attempt.settings.lease)
        # Of a machine that is not heard of nobody knows; what was cancelled has no process left there, too.
        cancelled = (
            job.requested_action in (RequestedAction.CANCEL, RequestedAction.FORCE_CANCEL)
            and end.status is not JobStatus.SUCCEEDED
        )
        there = workers.heard(session, attempt.settings.unseen if cancelled else timedelta(0))
        return _machines(session, attempt) & there <= {attempt.settings.worker}

    while not attempt.persist(others_are_gone):
        time.sleep(HEARTBEAT)
    _publish(attempt, end)
    status = attempt.persist(
        lambda session: attempts.finish(session, part.job_id, part.attempt, end, attempt.settings.retries)
    )
    if status is JobStatus.SUCCEEDED:
        forget_states([*attempt.earlier, run_dir], keep=0)


def _publish(attempt: Attempt, end: attempts.End) -> None:
    """Hands what is left to the publisher, and waits for it: as long as it takes where the job succeeds, and else for a
    while. The devices are free meanwhile. Raises StaleAttempt."""
    part, run_dir = attempt.part, attempt.run_dir
    log_bytes = run_dir.log.stat().st_size if run_dir.log.exists() else None

    def hand_over(session: Session) -> None:
        jobs.still_running(session, part.job_id, part.attempt)
        artifacts.add_end(session, *_run(attempt), Path(run_dir.log.name), log_bytes, report=end.status in TERMINAL)
        leases.free(session, *_mine(attempt))

    def is_done(session: Session) -> bool:
        jobs.part_with_the_others(session, part.job_id, part.attempt, attempt.settings.lease)
        return artifacts.are_published(session, part.job_id)

    attempt.persist(hand_over)
    patience = math.inf if end.status is JobStatus.SUCCEEDED else LONGEST_PUBLISHING
    deadline = time.monotonic() + patience
    while not attempt.persist(is_done) and time.monotonic() < deadline and run_dir.path.exists():
        time.sleep(TICK)


def _run(attempt: Attempt) -> tuple[str, int]:
    return attempt.part.job_id, attempt.part.attempt


def _mine(attempt: Attempt) -> tuple[str, int, str]:
    return attempt.part.job_id, attempt.part.attempt, attempt.settings.worker
