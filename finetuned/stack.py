"""The whole service on one machine: PostgreSQL, Valkey, migrations, API and worker as child processes.

with running(settings, report) as stack:    # answers at settings.address
    stack.check()                           # starts what has died anew, or raises
"""

import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

import httpx

from finetuned.descendants import adopt_orphans, end_descendants
from finetuned.home import hold, make_folder
from finetuned.postgres import await_postgres, launch_postgres, stop_postgres
from finetuned.process import (
    Child,
    ChildError,
    Command,
    StackError,
    describe_exit,
    start,
    stop,
    wait_until_done,
    wait_until_ready,
)
from finetuned.settings import StackSettings
from finetuned.valkey import await_valkey, launch_valkey, stop_valkey

_MIGRATION_SECONDS = 120.0
_API_START_SECONDS = 60.0
_STOP_SECONDS = {"api": 10.0, "worker": 60.0}  # a worker waits for its trainer's last checkpoint
_ORPHAN_SECONDS = 5.0
_MOST_DEATHS = 5  # of the API and the worker
_DEATH_SECONDS = 60.0  # within so long

Report = Callable[[str], None]


@dataclass
class Stack:
    settings: StackSettings
    report: Report
    children: list[Child] = field(default_factory=list)
    commands: dict[str, Command] = field(default_factory=dict)
    """Of the parts that are started anew when they die: no job is lost by that."""
    deaths: list[float] = field(default_factory=list)

    def check(self) -> None:
        """Starts the API or the worker anew where it has died. Raises ChildError when a server has, or when they die
        too often."""
        for index, child in enumerate(self.children):
            if not child.alive:
                died = f"died with {describe_exit(child.process.returncode)}"
                if child.name not in self.commands or self._dies_often():
                    raise ChildError(child, died)
                stop(child, 0)  # with what is left of its session
                self.report(f"the {child.name} {died}; starting another")
                self.children[index] = start(self.commands[child.name], child.log)

    def _dies_often(self) -> bool:
        now = time.monotonic()
        self.deaths = [*(then for then in self.deaths if now - then < _DEATH_SECONDS), now]
        return len(self.deaths) > _MOST_DEATHS

    def child(self, name: str) -> Child:
        return next(child for child in self.children if child.name == name)


@contextmanager
def running(settings: StackSettings, report: Report) -> Iterator[Stack]:
    """Starts every part, and stops them in reverse order at the end: no process of theirs is left.

    Raises StackError when a part does not start. `report` is told what happens, a line at a time.
    """
    check_port(settings.host, settings.port)
    for folder in (settings.home, settings.models, settings.logs):
        make_folder(folder)
    with _stop_signals_raise(), hold(settings.home), ExitStack() as parts:
        adopt_orphans()
        parts.callback(_leave_none, report)
        stack = Stack(settings, report)
        try:
            _start_parts(stack, parts)
            yield stack
        finally:
            _ignore_stop_signals()


def check_port(host: str, port: int) -> None:
    """Raises StackError when nothing new can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise StackError(
            f"cannot listen on {host} port {port}: {error.strerror}. Stop what is there, or choose another with --port"
        ) from error


def _start_parts(stack: Stack, parts: ExitStack) -> None:
    settings, logs = stack.settings, stack.settings.logs
    broker_url, database_url = settings.broker_url, settings.database_url
    valkey = postgres = None
    if broker_url is None:
        stack.report("starting Valkey")
        valkey = launch_valkey(settings.home / "valkey", logs / "valkey.log")
        stack.children.append(valkey.child)
        parts.callback(stop_valkey, valkey)
        broker_url = valkey.url
    if database_url is None:
        stack.report("starting PostgreSQL")
        postgres = launch_postgres(settings.home / "postgres", logs / "postgres.log")
        stack.children.append(postgres.child)
        parts.callback(stop_postgres, postgres)
        database_url = postgres.url
    if postgres is not None:
        await_postgres(postgres)
    environment = settings.part_environment(database_url, broker_url)
    stack.report("starting the API, and bringing the database's tables up to date")
    api = _start_part(stack, parts, "api", environment)
    migrations = start(_python("migrations", environment), logs / "migrations.log")
    try:
        wait_until_done(migrations, _MIGRATION_SECONDS)
    finally:
        stop(migrations, 5)
    if valkey is not None:
        await_valkey(valkey)
    stack.report("starting the worker")
    _start_part(stack, parts, "worker", environment)
    wait_until_ready(api, lambda: _takes_jobs(stack), _API_START_SECONDS)
    # Not before: one that cannot start is a mistake of the operator's.
    stack.commands = {name: _command(name, environment) for name in ("api", "worker")}


def _start_part(stack: Stack, parts: ExitStack, name: str, environment: dict[str, str]) -> Child:
    child = start(_command(name, environment), stack.settings.logs / f"{name}.log")
    stack.children.append(child)
    parts.callback(_stop_part, stack, name)
    return child


def _command(name: str, environment: dict[str, str]) -> Command:
    command = _python(name, environment)
    # Told to stop, a worker writes how its jobs have ended; without us there is no database to write to.
    return replace(command, death_signal=signal.SIGKILL) if name == "worker" else command


def _python(module: str, environment: dict[str, str]) -> Command:
    # -P: a folder named "api" where the user stands is not ours.
    return Command(module, [sys.executable, "-P", "-m", module], environment, Path.cwd())


def _takes_jobs(stack: Stack) -> bool:
    """Not before its worker is there: a job that is posted at once would be told that nobody can train it."""
    stack.check()
    try:
        return httpx.get(f"{stack.settings.address}/health/ready", timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _stop_part(stack: Stack, name: str) -> None:
    stack.report(f"stopping the {name}")
    stop(stack.child(name), _STOP_SECONDS[name])


def _leave_none(report: Report) -> None:
    left = end_descendants(_ORPHAN_SECONDS)
    for pid, name in left.items():
        report(f"process {pid} ({name}) could not be ended")


@contextmanager
def _stop_signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP are as Ctrl-C: they end the block by KeyboardInterrupt."""

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    caught = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else nohup started us
        caught.append(signal.SIGHUP)
    before = {each: signal.signal(each, interrupt) for each in caught}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _ignore_stop_signals() -> None:
    """While we stop, which is bounded, a second Ctrl-C would only leave processes behind."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
