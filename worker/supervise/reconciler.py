"""Keeps the promises that no single attempt can keep, once a second.

It sends the worker's heartbeat and the use of its GPUs, ends orphaned processes and frees their devices, takes over
jobs whose worker has gone silent, gives devices to waiting jobs, resends messages that may be lost, and records the
memory in use.
"""

import logging
import math
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path

from celery import Celery
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from contract.machine import Disk, Machine
from contract.run_dir import RunDir
from runtime import broker, processes
from store import artifacts, schema
from store.errors import WorkerSuperseded
from store.jobs import attempts, jobs
from store.models import Lease
from store.scheduling import inference, leases, memory, workers
from store.session import Sessions
from worker.dispatch import dispatch
from worker.launchers.orphans import orphans_of
from worker.launchers.slurm_orphans import tell_to_stop
from worker.machine import devices
from worker.machine.disk import DiskWatch
from worker.machine.inventory import machine_memory_used
from worker.run_output import read_exit_report, read_log_tail
from worker.settings import WorkerSettings
from worker.supervise import orphans

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ROUNDS = 1.0
SECONDS_BETWEEN_MEMORY_READINGS = 30.0
_LATER_THAN_A_GUARD = timedelta(seconds=5)


def release_earlier(session: Session, worker: str) -> None:
    """Releases what an earlier worker of this name has begun: nobody follows it any more.

    Call it before this worker starts. A process of this worker may get the pid of one that did follow an attempt, for
    example in a container that is started again.
    """
    for lease in leases.list_started(session, worker):
        if lease.pid is not None:
            leases.release(session, lease.job_id, lease.attempt, worker, lease.pid)
    inference.stop_all(session, worker)


class Reconciler:
    """Compares, for one worker, what the store says with what this machine runs, and acts on the difference."""

    def __init__(  # parameters: what it works with
        self,
        sessions: Sessions,
        app: Celery,
        settings: WorkerSettings,
        machine: Machine,
        draining: Callable[[], bool],
        followed_servers: Callable[[], Collection[Path]] = tuple,
    ) -> None:
        self._sessions = sessions
        self._app = app
        self._settings = settings
        self._machine = machine
        self._draining = draining
        self._followed_servers = followed_servers
        self._instance_id = secrets.token_hex(8)
        self._registered = False
        self._disk = DiskWatch(settings.home, settings.disk_reserve)
        self._recorded_disk: Disk | None = None
        self._next_memory_reading = 0.0
        """On the monotonic clock."""
        self._stopping = threading.Event()
        self._outdated: str | None = None
        """What is wrong with the database's schema."""
        # Later than a guard, which kills first and writes a report.
        longest = settings.grace + _LATER_THAN_A_GUARD
        self._orphans = orphans_of(settings, longest)
        self._database_available_since = math.inf
        """On the monotonic clock."""

    def run(self) -> None:
        """Runs a round every second until `leave`."""
        self.measure_disk()
        threading.Thread(target=self._disk.run, args=(self._stopping,), name="disk", daemon=True).start()
        self.round()
        while not self._stopping.wait(SECONDS_BETWEEN_ROUNDS):
            self.round()

    def measure_disk(self) -> None:
        """Measures before the first heartbeat, so that no job is placed on a worker whose disk is low."""
        self._disk.measure()

    def round(self) -> None:
        """Does each duty once. Raises nothing: whatever goes wrong, the next round is the remedy."""
        for duty in (
            self.send_heartbeat,
            self.end_orphans,
            self.take_over,
            self.dispatch,
            self.place_servers,
            self.resend,
            self.record_memory,
        ):
            try:
                duty()
            except WorkerSuperseded as error:
                log.error("%s; this one ends", error)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except Exception as error:
                log.exception("%s failed, the next round tries again", duty.__name__)
                if isinstance(error, SQLAlchemyError):
                    self._database_available_since = math.inf

    def send_heartbeat(self) -> None:
        """Records that this worker is alive, and which other processes use its devices."""
        name = self._settings.worker
        with self._sessions.begin() as session:
            self._compare_schema(session)
            leased = {lease.number for lease in workers.list_leases(session) if lease.worker == name}
            leased |= {server.number or 0 for server in workers.list_servers(session) if server.worker == name}
        if self._outdated is None:
            external_processes = devices.external_processes(self._machine, self._is_ours, leased)
        else:
            external_processes = self._machine.unusable_devices(self._outdated)
        draining = self._draining() or self._outdated is not None
        with self._sessions.begin() as session:
            if not self._registered:
                settings = self._settings
                # The nodes of a cluster run jobs alone.
                serves = "off" if settings.profiles else settings.inference
                shares = settings.inference_vllm is None
                workers.register(session, name, self._instance_id, settings.address, self._machine, serves, shares)
                self._recorded_disk = None
            self._registered = workers.heartbeat(session, name, self._instance_id, external_processes, draining)
            disk = self._disk.latest
            if disk is not None and disk != self._recorded_disk:
                workers.record_disk(session, name, self._instance_id, disk)
        self._recorded_disk = disk
        self._database_available_since = min(self._database_available_since, time.monotonic())

    def _compare_schema(self, session: Session) -> None:
        """Has this worker take no new job on a database that was migrated under it. Its running jobs go on."""
        problem = schema.mismatch(schema.revision_of(session.connection()))
        if problem != self._outdated:
            log.error("%s", problem or "the database has this worker's schema again")
            self._outdated = problem

    def _is_ours(self, pid: int) -> bool:
        marks = orphans.marks_of(pid)
        if marks is None:
            return False
        return marks.worker == self._settings.worker and marks.run.is_relative_to(self._settings.runs)

    def end_orphans(self) -> None:
        """Ends the processes of attempts that nobody follows, then frees their devices and records that they ended."""
        self._kill_overdue()
        # Listed before the search for processes: it finds whatever the dead followers have started.
        unfollowed = [lease for lease in self._begun() if not self._has_follower(lease)]
        remaining = self._orphans.end(time.monotonic(), self._followed)
        if remaining is None:
            return
        for lease in unfollowed:
            if self._run(lease) not in remaining:
                self._end(lease)

    def _kill_overdue(self) -> None:
        """Kills the followers that hang: they live, and do not renew their job's lease."""
        if not self._everyone_had_time():
            return
        with self._sessions.begin() as session:
            overdue = jobs.list_overdue(session, self._settings.worker, self._settings.grace)
        for lease in self._begun():
            if lease.job_id in overdue and lease.pid is not None and self._has_follower(lease):
                log.error("job %s: process %s does not renew its lease and is killed", lease.job_id, lease.pid)
                os.kill(lease.pid, signal.SIGKILL)

    def _followed(self) -> set[Path]:
        attempts_followed = {self._run(lease) for lease in self._begun() if self._has_follower(lease)}
        return attempts_followed.union(self._followed_servers())

    def _begun(self) -> list[Lease]:
        with self._sessions.begin() as session:
            return leases.list_started(session, self._settings.worker)

    def _has_follower(self, lease: Lease) -> bool:
        """Whether the process of this worker that follows the attempt is alive."""
        return lease.pid is not None and processes.parent_of(lease.pid) == os.getpid()

    def _run(self, lease: Lease) -> Path:
        return self._settings.runs / artifacts.run_path(lease.job_id, lease.attempt)

    def _end(self, lease: Lease) -> None:
        with self._sessions.begin() as session:
            status = None
            if lease.rank == 0:
                left = self._read_output(lease.job_id, lease.attempt)
                status = attempts.fail_lost(session, lease.job_id, lease.attempt, self._settings.retries, left)
            leases.free(session, lease.job_id, lease.attempt, self._settings.worker)
        if self._settings.profiles:
            tell_to_stop(self._run(lease))
        if status is not None:
            log.warning("job %s lost the process that ran attempt %s: %s", lease.job_id, lease.attempt, status)

    def _read_output(self, job_id: str, attempt: int) -> attempts.RunOutput:
        run = RunDir(self._settings.runs / artifacts.run_path(job_id, attempt))
        exit_report = read_exit_report(run.exit_report)
        return attempts.RunOutput(read_log_tail(run.log), exit_report.model_dump(mode="json") if exit_report else None)

    def take_over(self) -> None:
        """Takes over the jobs of workers that have gone silent."""
        if not self._everyone_had_time():
            return
        settings = self._settings
        with self._sessions.begin() as session:
            lost = attempts.fail_expired(session, settings.unseen, settings.retries, self._read_output)
            for job, status in lost:
                log.warning("job %s lost its worker %s in attempt %s: %s", job.id, job.worker, job.attempt, status)
            on_clusters = [job for job, _ in lost if job.recipe["resources"].get("profile")]
            runs = [settings.runs / artifacts.run_path(job.id, job.attempt) for job in on_clusters]
        for run in runs:
            tell_to_stop(run)

    def _everyone_had_time(self) -> bool:
        """Whether the database has been available for the time of a lease. While it was not, no worker could send a
        heartbeat."""
        return time.monotonic() - self._database_available_since >= self._settings.lease.total_seconds()

    def dispatch(self) -> None:
        """Gives devices to waiting jobs."""
        if self._outdated is None:
            dispatch(self._sessions, self._app)

    def place_servers(self) -> None:
        """Gives devices to wanted inference servers."""
        if self._outdated is None:
            with self._sessions.begin() as session:
                inference.place(session)

    def resend(self) -> None:
        """Sends this worker again the attempts that it has not begun. A message too many does no harm."""
        with self._sessions.begin() as session:
            waiting = leases.not_started(session, self._settings.worker)
        for job_id, attempt in waiting:
            broker.request_start(self._app, self._settings.worker, job_id, attempt)

    def record_memory(self) -> None:
        """Records the memory in use on this machine and its GPUs, every half minute."""
        if self._outdated is not None or time.monotonic() < self._next_memory_reading:
            return
        used = devices.memory_used(self._machine, range(len(self._machine.gpus)))
        used[memory.MACHINE] = machine_memory_used()
        with self._sessions.begin() as session:
            if self._next_memory_reading == 0:
                memory.prune(session)
            memory.record(session, self._settings.worker, used)
        self._next_memory_reading = time.monotonic() + SECONDS_BETWEEN_MEMORY_READINGS

    def leave(self) -> None:
        """Removes this worker from the list when it stops. No round follows that would list it again."""
        self._stopping.set()
        try:
            with self._sessions.begin() as session:
                workers.unregister(session, self._settings.worker, self._instance_id)
        except OperationalError as error:
            log.warning("the worker stays listed until it counts as lost: the database is unavailable: %s", error)
