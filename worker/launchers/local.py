"""Trains on this machine: torchrun under a guard, on the attempt's devices."""

import os
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from contract.machine import Machine
from contract.recipe import Recipe
from worker.launchers import network
from worker.launchers.command import trainer_command
from worker.launchers.launcher import Ended, Prepared, TrainerRun
from worker.launchers.torchrun import Rendezvous
from worker.machine import devices
from worker.settings import WorkerSettings
from worker.supervise import process
from worker.supervise.process import GuardedProcess, Workspace


class LocalTrainer:
    """A trainer under a guard: once the guard has exited, no process is left."""

    def __init__(self, guarded: GuardedProcess) -> None:
        self._guarded = guarded

    def poll(self) -> Ended | None:
        exit_code = self._guarded.poll()
        return None if exit_code is None else Ended(exit_code)

    def wait(self) -> Ended:
        return Ended(self._guarded.wait())

    def stop(self) -> None:
        self._guarded.stop()

    def kill(self) -> None:
        self._guarded.kill()

    def waits(self) -> None:
        """It begins at once: its devices were free."""
        return None


@dataclass(frozen=True)
class LocalLauncher:
    settings: WorkerSettings
    machine: Machine
    devices: Sequence[int]
    """Numbers of the attempt's devices on this machine."""

    def prepare(self, run: TrainerRun) -> Prepared:
        """The trainer on the attempt's only machine, or on its head node."""
        settings, folder = self.settings, run.folder
        several = run.recipe.resources.nodes > 1
        endpoint = f"{settings.address}:{_free_port(settings.address)}" if several else None
        rendezvous = self._rendezvous(run.recipe, run.name, endpoint, head=True) if endpoint else None
        command = trainer_command(settings, run.recipe, folder.path, run.state, rendezvous)
        workspace = Workspace(folder.path, folder.log, folder.exit_report)
        return Prepared(command, endpoint, partial(self._start, command, workspace, distributed=bool(endpoint)))

    def start_part(self, run: TrainerRun, rank: int, endpoint: str) -> LocalTrainer:
        """Starts this machine's ranks, which meet the head node's at `endpoint`."""
        folder = run.folder.path
        rendezvous = self._rendezvous(run.recipe, run.name, endpoint, head=rank == 0)
        command = trainer_command(self.settings, run.recipe, folder, run.state, rendezvous)
        log, exit_report = (folder / name for name in (f"trainer-{rank}.log", f"exit_report-{rank}.json"))
        return self._start(command, Workspace(folder, log, exit_report), distributed=True)

    def _rendezvous(self, recipe: Recipe, name: str, endpoint: str, *, head: bool) -> Rendezvous:
        """How this machine meets the others of the attempt; the head node hosts the meeting."""
        return Rendezvous(recipe.resources.nodes, endpoint, name, self.settings.address, head)

    def _start(self, command: list[str], workspace: Workspace, *, distributed: bool) -> LocalTrainer:
        settings = self.settings
        environment = process.marks(settings.worker, workspace.folder)
        environment |= devices.environment(self.machine, self.devices)
        if distributed:
            environment |= network.environment(settings.address, os.environ)
        return LocalTrainer(process.start(command, workspace, settings.grace, environment))


def state_of(command: str) -> Path | None:
    """The training checkpoint that a command resumes from."""
    words = shlex.split(command)
    return Path(words[words.index("--resume") + 1]) if "--resume" in words else None


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])
