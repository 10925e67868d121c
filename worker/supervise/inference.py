"""Runs the inference servers of a worker: starts those that got a device, and ends those that are to make room."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from shutil import rmtree

from sqlalchemy.exc import SQLAlchemyError

from contract.failure import Failure, FailureCode, InputError
from contract.inference import READY, SPEC, Ready, ServerSpec, VllmSpec
from contract.locate import locate_model
from contract.machine import Machine
from contract.run_dir import RunDir
from store.models import InferenceServer
from store.scheduling import inference
from store.session import Sessions
from worker.machine import devices
from worker.run_output import read_error, read_log_tail
from worker.settings import WorkerSettings
from worker.supervise import orphans, process
from worker.supervise.process import GuardedProcess, Workspace

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ROUNDS = 0.25
SECONDS_BETWEEN_LOOKS = 1.0
"""While it runs none."""
FOLDER = "inference"
"""Below the runs folder: the folders of all inference servers."""
_GRACE = timedelta(seconds=5)
"""How long answers that are under way may take when a server is to end."""


@dataclass
class _Running:
    process: GuardedProcess
    run: RunDir
    is_ready: bool = False
    is_stopping: bool = False


class InferenceServers:
    """The inference servers of one worker. Its thread must live as long as the worker: their guards end with it."""

    def __init__(
        self, sessions: Sessions, settings: WorkerSettings, machine: Machine, draining: Callable[[], bool]
    ) -> None:
        self._sessions = sessions
        self._settings = settings
        self._machine = machine
        self._draining = draining
        self._running: dict[str, _Running] = {}
        self._ended = threading.Event()
        self._seen_at = time.monotonic()
        """When the database was last available."""

    def followed(self) -> set[Path]:
        """The folders of the servers that this process has started and not yet reaped."""
        return {self._run(server_id).path for server_id in [*self._running]}

    def run(self) -> None:
        """Runs until the worker drains and every server has ended."""
        ends = False
        while not ends:
            ends = self._draining()
            try:
                self.round()
            except SQLAlchemyError as error:
                log.warning("inference servers wait for the database: %s", error)
                self._stop_without_database()
            except Exception:
                log.exception("inference servers: the next round tries again")
            ends = ends and not self._running
            time.sleep(SECONDS_BETWEEN_ROUNDS if self._running else SECONDS_BETWEEN_LOOKS)
        self._ended.set()

    def _stop_without_database(self) -> None:
        """Their rows stay, for the next worker of this name."""
        silent = time.monotonic() - self._seen_at
        if self._draining() or silent > self._settings.cut_off.total_seconds():
            self._stop(self._running)
        self._reap({})

    def wait_until_ended(self) -> None:
        self._ended.wait((_GRACE * 3).total_seconds())

    def round(self) -> None:
        """Compares the rows with the processes, and acts on the difference."""
        with self._sessions.begin() as session:
            inference.stop_unseen(session)
            if self._draining():
                inference.stop_all(session, self._settings.worker)
            rows = {row.id: row for row in inference.report(session, self._settings.worker)}
        self._seen_at = time.monotonic()
        self._give_up([row.id for row in rows.values() if row.state == "ready" and row.id not in self._running])
        # A row that is gone was given up: this worker was silent for too long.
        self._stop([each for each in self._running if each not in rows or rows[each].state == "stopping"])
        for row in rows.values():
            if row.state == "starting" and row.id not in self._running:
                self._start(row)
        self._report_ready(rows.values())
        self._reap(rows)
        self._end_left_behind([row for row in rows.values() if row.state == "stopping"])

    def _give_up(self, server_ids: Collection[str]) -> None:
        """Ends rows whose processes have ended while the database did not take it."""
        if server_ids:
            log.warning("inference servers are gone: %s", ", ".join(server_ids))
            with self._sessions.begin() as session:
                inference.stop(session, server_ids)

    def _start(self, row: InferenceServer) -> None:
        try:
            self._launch(row, self._spec(row))
        except InputError as error:
            self._end(row.id, error.failure)
        except OSError as error:  # a full disk, for example
            message = f"worker {self._settings.worker} cannot start the inference server: {error}"
            self._end(row.id, Failure(code=FailureCode.WORKER_FAILED, message=message))

    def _launch(self, row: InferenceServer, spec: ServerSpec) -> None:
        run, settings = self._run(row.id), self._settings
        rmtree(run.path, ignore_errors=True)  # an earlier process of this row may have left its port
        run.path.mkdir(parents=True)
        (run.path / SPEC).write_text(spec.model_dump_json())
        workspace = Workspace(run.path, run.log, run.exit_report)
        given = process.marks(settings.worker, run.path) | devices.environment(self._machine, [row.number or 0])
        command = [sys.executable, "-P", "-m", "inference", str(run.path)]
        self._running[row.id] = _Running(process.start(command, workspace, _GRACE, given), run)
        log.info("inference server %s of %s starts on device %s", row.id, row.base, row.number)

    def _spec(self, row: InferenceServer) -> ServerSpec:
        """Raises InputError if the model is gone."""
        settings = self._settings
        folder = locate_model(row.base, settings.folders)
        vllm = settings.inference_vllm
        return ServerSpec(
            model=str(folder) if folder else row.base,
            host=settings.inference_address,
            secret=row.secret,
            idle_seconds=settings.inference_idle.total_seconds(),
            adapters=settings.inference_adapters,
            batch=settings.inference_batch,
            vllm=VllmSpec(command=vllm, options=settings.inference_vllm_options) if vllm else None,
        )

    def _report_ready(self, rows: Collection[InferenceServer]) -> None:
        for row in rows:
            running = self._running.get(row.id)
            if running is None or running.is_ready or not (running.run.path / READY).exists():
                continue
            port = Ready.model_validate_json((running.run.path / READY).read_bytes()).port
            with self._sessions.begin() as session:
                inference.set_ready(session, row.id, host_and_port(self._settings.inference_address, port))
            running.is_ready = True

    def _stop(self, server_ids: Collection[str]) -> None:
        for server_id in server_ids:
            running = self._running[server_id]
            if not running.is_stopping:
                running.process.stop()
                running.is_stopping = True

    def _reap(self, rows: Collection[str]) -> None:
        """Frees the devices of servers that have ended: no process of them is left, as their guards have ended too."""
        for server_id, running in [*self._running.items()]:
            code = running.process.poll()
            if code is None:
                continue
            log.info("inference server %s has ended with %s", server_id, code)
            if not orphans.find(self._settings.worker, running.run.path):
                if server_id in rows:
                    started = running.is_ready or running.is_stopping
                    self._end(server_id, None if started else _failure(running.run, code))
                del self._running[server_id]

    def _end_left_behind(self, stopping: Collection[InferenceServer]) -> None:
        """Frees the devices of servers that an earlier worker of this name has started, once they have ended."""
        for row in stopping:
            if row.id not in self._running and not orphans.find(self._settings.worker, self._run(row.id).path):
                self._end(row.id, None)

    def _end(self, server_id: str, failure: Failure | None) -> None:
        if failure is not None:
            log.error("inference server %s did not start: %s", server_id, failure.message)
        with self._sessions.begin() as session:
            inference.end(session, server_id, failure)
        rmtree(self._run(server_id).path, ignore_errors=True)

    def _run(self, server_id: str) -> RunDir:
        return RunDir(self._settings.runs / FOLDER / server_id)


def host_and_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _failure(run: RunDir, code: int) -> Failure:
    error = read_error(run)
    if error is not None:
        return error
    last = read_log_tail(run.log).strip().rpartition("\n")[2]
    return Failure(code=FailureCode.WORKER_FAILED, message=f"the inference server ended with {code}: {last}")
