"""`finetuned up` for several owners, on a port and a home of its own, on a machine that has other users too."""

import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.locate import PRIVATE
from finetuned import Client
from finetuned.stack.home import make_key
from tests.finetuned.stacks import Up, launched, pids_of, ready
from tests.support.files import write_dataset, write_model
from tests.support.processes import read_proc
from tests.support.waiting import until

pytestmark = pytest.mark.slow

KEY = "an-admin-key-of-some-length"


@pytest.fixture(scope="module")
def up(folder: Path) -> Iterator[Up]:
    write_dataset(folder / "rows.jsonl")
    secrets = {"FINETUNED_ADMIN_KEY": KEY, "HF_TOKEN": "hf-token", "FINETUNED_API_KEY": ""}
    settings = {"FINETUNED_REQUIRE_KEYS": "true", "FINETUNED_ALLOWED_PATHS": str(folder)}
    settings["FINETUNED_WEBHOOK_ALLOW_PRIVATE"] = "true"
    with ready(folder / "home", folder / "log", **secrets, **settings) as up:
        yield up


def commands(text: str) -> list[str]:
    """The command lines in a text, as people would copy them."""
    return [found.rstrip() for found in re.findall(r"\b(finetuned [a-z][^;\n]*)", text)]


def as_printed(command: str, folder: Path, **names: str) -> subprocess.CompletedProcess[str]:
    """Runs it with a real thing in the place of each word in capitals, in an environment that says nothing."""
    words = [names.get(word, word) for word in shlex.split(command)]
    assert words.pop(0) == "finetuned"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FINETUNED_")}
    line = [sys.executable, "-m", "finetuned", *words]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.exhaustive
def test_every_printed_command_works_as_printed(up: Up, folder: Path) -> None:
    add, submit = until(lambda: printed if len(printed := commands(up.log.read_text())) == 2 else None)
    assert add == f"finetuned models add smollm2-135m-instruct --home {folder}/home"
    assert as_printed(add.replace("add smollm2-135m-instruct ", ""), folder).returncode == 0
    write_model(folder / "home" / "models" / "tiny")
    (folder / "recipe.json").write_text('{"model": "tiny", "dataset": "rows.jsonl", "name": "steps=2"}')
    done = as_printed(submit, folder, **{"RECIPE.json": "recipe.json", "KEY": KEY})
    assert done.returncode == 0, done.stderr
    run: set[str] = set()
    found = commands(done.stderr)
    found += [submit.replace("submit RECIPE.json --watch", words) for words in ("submit recipe.json", "webhooks")]
    while found:
        command = found.pop()
        if command.split(" --")[0] not in run:
            run.add(command.split(" --")[0])
            done = as_printed(command, folder, KEY=KEY, URL="http://127.0.0.1:9/")
            assert done.returncode == 0, (command, done.stderr)
            found += commands(done.stderr)
    words = {" ".join(command.split()[1:3]) for command in run}
    assert {"submit recipe.json", "webhooks add", "webhooks test", "webhooks log"} <= words
    assert {"download", "watch"} <= {each.partition(" ")[0] for each in words}


def test_secrets_reach_only_the_processes_that_need_them(up: Up) -> None:
    has = {
        part: read_proc(pids_of(up.process.pid, f"-m\0{part}\0")[0], "environ").decode() for part in ("api", "worker")
    }
    assert {part for part, environment in has.items() if KEY in environment} == {"api"}
    assert {part for part, environment in has.items() if "hf-token" in environment} == {"worker"}
    assert {part for part, environment in has.items() if "FINETUNED_SECRET_KEY" in environment} == {"api"}


def test_key_that_encrypts_secrets_is_made_once(up: Up, folder: Path) -> None:
    file = folder / "home" / "secret_key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    assert len(before) >= 64
    make_key(file)
    assert file.read_text() == before
    with Client(up.url, key=KEY) as client:
        client.secrets.set("token", "a-value")
        assert [each.name for each in client.secrets.list()] == ["token"]


def test_no_other_user_reads_what_is_written(up: Up, folder: Path) -> None:
    home = folder / "home"
    write_model(home / "models" / "other")
    with Client(up.url, key=KEY) as client:
        client.datasets.upload(folder / "rows.jsonl")
        job_id = client.jobs.create({"model": "other", "dataset": "rows.jsonl", "name": "steps=2"}).id
        assert list(client.jobs.at(job_id).watch())[-1].data["status"] == "succeeded"
    # Where a link has put one of them elsewhere, it is closed there by its name.
    folders = {path.name for path in home.iterdir() if path.is_dir()}
    assert {"blobs", "logs", "postgres", "runs"} <= folders <= {*PRIVATE, "models"}
    # PostgreSQL's user, where that is not us, goes through these two to its data.
    assert {path for path in home.rglob("*") if is_open(path, home)} <= {home / "postgres", *home.glob("postgres/*")}
    for path in (home, home / "postgres", home / "postgres" / "data"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o066 == 0, path


def is_open(path: Path, home: Path) -> bool:
    """Whether another user could get at it: by the modes of all that lies on the way."""
    way = [path, *path.parents][: len(path.relative_to(home).parts)]
    return all(each.is_symlink() or each.stat().st_mode & 0o077 for each in way)


def test_open_home_of_an_earlier_release_is_closed(up: Up, folder: Path) -> None:
    for name in ("runs", "blobs", "logs"):
        (folder / "home" / name).chmod(0o755)
    (worker,) = pids_of(up.process.pid, "-m\0worker\0")
    os.kill(worker, 9)
    until(lambda: all((folder / "home" / name).stat().st_mode & 0o077 == 0 for name in ("runs", "blobs")), 20)


@pytest.mark.parametrize("allowed", ["/", "{home}", "{home}/runs", "/etc"])
def test_too_wide_folder_is_refused_before_the_start(folder: Path, allowed: str) -> None:
    home = folder / "untouched"
    given = allowed.format(home=home)
    with launched(home, folder / "log2", FINETUNED_ALLOWED_PATHS=f"{folder}:{given}") as refused:
        code, log = refused.wait()
    assert code == 1
    assert log.startswith(f"FINETUNED_ALLOWED_PATHS: got {given}; it ")
    assert not home.exists()
