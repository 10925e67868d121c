"""The whole service on one machine: PostgreSQL, Valkey, migrations, API and worker as child processes.

with running(settings, report) as stack:    # answers at settings.address
    stack.check()                           # restarts a part that has died, or raises
"""

import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType

import httpx

from finetuned.stack.home import close_to_others, hold, make_folder, make_key
from finetuned.stack.postgres import Postgres, await_postgres, launch_postgres, relaunch_postgres, stop_postgres
from finetuned.stack.process import (
    Child,
    ChildError,
    Command,
    StackError,
    adopt_orphans,
    describe_exit,
    end_descendants,
    kill_descendants,
    start,
    stop,
    wait_until_done,
    wait_until_ready,
)
from finetuned.stack.settings import StackSettings
from finetuned.stack.valkey import Valkey, await_valkey, launch_valkey, relaunch_valkey, stop_valkey

_MIGRATION_SECONDS = 120.0
_API_START_SECONDS = 60.0
_STOP_SECONDS = {"api": 10.0, "worker": 60.0}  # a worker waits for its trainer's last checkpoint
_ORPHAN_SECONDS = 5.0
_MOST_RESTARTS = 5  # of a part within _RESTART_SECONDS
_RESTART_SECONDS = 60.0
_DATABASE_RESTART_SECONDS = 600.0  # one restart in this time: what kills PostgreSQL twice would kill it for ever

Report = Callable[[str], None]


@dataclass
class Stack:
    settings: StackSettings
    report: Report
    children: list[Child] = field(default_factory=list)
    restarts: dict[str, Callable[[], Child]] = field(default_factory=dict)
    """How to restart each part; no job is lost by a restart. Empty until all parts have started once, as a part that
    cannot start is misconfigured."""
    deaths: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def check(self) -> None:
        """Restarts each part that has died. Raises ChildError when one dies too often."""
        for index, child in enumerate(self.children):
            if not child.alive:
                died = f"died with {describe_exit(child.process.returncode)}"
                if child.name not in self.restarts or self._dies_often(child.name):
                    raise ChildError(child, died)
                stop(child, 0)  # ends the rest of its session
                self.report(f"the {child.name} {died}; restarting it")
                self.children[index] = self.restarts[child.name]()

    def _dies_often(self, name: str) -> bool:
        most, seconds = (1, _DATABASE_RESTART_SECONDS) if name == "postgres" else (_MOST_RESTARTS, _RESTART_SECONDS)
        now = time.monotonic()
        self.deaths[name] = [*(then for then in self.deaths[name] if now - then < seconds), now]
        return len(self.deaths[name]) > most

    def child(self, name: str) -> Child:
        return next(child for child in self.children if child.name == name)

    @property
    def database_is_gone(self) -> bool:
        """Whether our own PostgreSQL has died; False for a server that is not ours."""
        return any(child.name == "postgres" and not child.alive for child in self.children)


@contextmanager
def running(settings: StackSettings, report: Report) -> Iterator[Stack]:
    """Starts every part, and stops all of them in reverse order at the end; none of their processes is left.

    Calls `report` with a line for each step. Raises StackError when a part does not start.
    """
    if settings.unsafe_folder is not None:
        raise StackError(settings.unsafe_folder)
    check_port(settings.host, settings.port)
    make_folder(settings.home, on_the_way=True)
    for folder in (settings.models, settings.logs):
        make_folder(folder)
    close_to_others([settings.logs])
    with _stop_signals_raise(), hold(settings.home), ExitStack() as parts:
        if not settings.has_secret_key:
            make_key(settings.secret_key_file)
        adopt_orphans()
        parts.callback(_end_orphans, report)
        stack = Stack(settings, report)
        try:
            _start_parts(stack, parts)
            yield stack
        finally:
            _ignore_stop_signals()


def check_port(host: str, port: int) -> None:
    """Raises StackError when the address cannot be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind, protocol)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise StackError(
            f"cannot listen on {host} port {port}: {error.strerror}. Stop the program there, or choose another --port"
        ) from error


def _start_parts(stack: Stack, parts: ExitStack) -> None:
    settings, logs = stack.settings, stack.settings.logs
    broker_url, database_url = settings.broker_url, settings.database_url
    valkey = postgres = None
    if broker_url is None:
        stack.report("starting Valkey")
        valkey = launch_valkey(settings.home / "valkey", logs / "valkey.log")
        stack.children.append(valkey.child)
        parts.callback(_stop_valkey, stack, valkey)
        broker_url = valkey.url
    if database_url is None:
        stack.report("starting PostgreSQL")
        postgres = launch_postgres(settings.home / "postgres", logs / "postgres.log")
        stack.children.append(postgres.child)
        parts.callback(_stop_postgres, stack, postgres)
        database_url = postgres.url
    if postgres is not None:
        await_postgres(postgres)
    urls = (database_url, broker_url)
    stack.report("starting the API and migrating the database")
    api = _start_part(stack, parts, "api", urls)
    migrations = start(_command(stack, "migrations", urls), logs / "migrations.log")
    try:
        wait_until_done(migrations, _MIGRATION_SECONDS)
    finally:
        stop(migrations, 5)
    if valkey is not None:
        await_valkey(valkey)
    stack.report("starting the worker")
    _start_part(stack, parts, "worker", urls)
    wait_until_ready(api, lambda: _takes_jobs(stack), _API_START_SECONDS)
    for name in ("api", "worker"):
        stack.restarts[name] = partial(start, _command(stack, name, urls), logs / f"{name}.log")
    if valkey is not None:
        stack.restarts["valkey"] = partial(_relaunch_valkey, stack, valkey)
    if postgres is not None:
        stack.restarts["postgres"] = partial(_relaunch_postgres, stack, postgres)


def _start_part(stack: Stack, parts: ExitStack, name: str, urls: tuple[str, str]) -> Child:
    child = start(_command(stack, name, urls), stack.settings.logs / f"{name}.log")
    stack.children.append(child)
    parts.callback(_stop_part, stack, name)
    return child


def _command(stack: Stack, name: str, urls: tuple[str, str]) -> Command:
    # -P: a folder named "api" in the user's current directory is not ours.
    argv = [sys.executable, "-P", "-m", name]
    command = Command(name, argv, stack.settings.part_environment(name, *urls), Path.cwd())
    # A worker that is stopped writes how its jobs ended; once we are dead there is no database to write to.
    return replace(command, death_signal=signal.SIGKILL) if name == "worker" else command


def _relaunch_valkey(stack: Stack, first: Valkey) -> Child:
    return relaunch_valkey(replace(first, child=stack.child("valkey"))).child


def _relaunch_postgres(stack: Stack, first: Postgres) -> Child:
    # Backends in the middle of a statement outlive the server for a while and hold its data, without writing more.
    kill_descendants("postgres")
    return relaunch_postgres(replace(first, child=stack.child("postgres"))).child


def _takes_jobs(stack: Stack) -> bool:
    """Whether the API is ready, its worker included: without one, an early job would be refused as untrainable."""
    stack.check()
    try:
        return httpx.get(f"{stack.settings.address}/health/ready", timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _stop_part(stack: Stack, name: str) -> None:
    """Stops the API or the worker; at once if the database is gone, as a worker would try to write for a minute."""
    stack.report(f"stopping the {name}")
    stop(stack.child(name), 0 if stack.database_is_gone else _STOP_SECONDS[name])


def _stop_valkey(stack: Stack, first: Valkey) -> None:
    stop_valkey(replace(first, child=stack.child("valkey")))


def _stop_postgres(stack: Stack, first: Postgres) -> None:
    stop_postgres(replace(first, child=stack.child("postgres")))


def _end_orphans(report: Report) -> None:
    for pid, name in end_descendants(_ORPHAN_SECONDS).items():
        report(f"process {pid} ({name}) could not be ended")


@contextmanager
def _stop_signals_raise() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt in the block, as Ctrl-C does."""

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    caught = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        caught.append(signal.SIGHUP)
    before = {each: signal.signal(each, interrupt) for each in caught}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _ignore_stop_signals() -> None:
    """Stopping takes a limited time; a second Ctrl-C would only leave processes behind."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
