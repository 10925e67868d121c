"""The published package: the client and the command, typed, without the service."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement

import finetuned
from contract import status
from finetuned.status import TERMINAL

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

TYPED = """
from pathlib import Path
from finetuned import Client, __version__
with Client("http://127.0.0.1:8000") as client:
    reveal_type(client.jobs.at("job_1").download(Path("out")))
    client.jobs.at("job_1").download()
    for job in client.jobs.list():
        reveal_type(job.created_at)
reveal_type(__version__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PROJECT["tool"]["importlinter"]["root_packages"]:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import setuptools.build_meta as build, sys; print(build.build_wheel(sys.argv[1]))"
    command = [sys.executable, "-W", "ignore", "-c", build, str(source)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True, timeout=120)
    return source / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and with the dependencies of this one but not its editable install."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=60)
    (site_packages,) = environment.glob("lib/*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", "--no-compile", str(wheel)], check=True, timeout=120)
    # A .pth file within a folder that a .pth file names is not read.
    (site_packages / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    return environment


def run(installed: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "COLUMNS": "200"}
    command = [str(installed / "bin" / program), *arguments]
    return subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, timeout=60)


def test_wheel_claims_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    packages = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {"finetuned"}
    assert "finetuned/py.typed" in names
    assert not [name for name in names if "/stack/" in name or "/demo" in name]


def test_wheel_requires_only_what_the_client_imports(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        (path,) = [name for name in opened.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Metadata.from_email(opened.read(path))
    assert metadata.requires_dist == [Requirement(each) for each in PROJECT["project"]["dependencies"]]
    assert {each.name for each in metadata.requires_dist} == {"httpx", "rich", "typer"}
    assert not metadata.provides_extra


def test_installed_command_and_client_work_without_the_service(installed: Path) -> None:
    shown = run(installed, "finetuned", "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "submit" in shown.stdout
    everything = (
        "import finetuned, importlib, pkgutil\n"
        "for module in pkgutil.walk_packages(finetuned.__path__, 'finetuned.'):\n"
        "    module.name.endswith('__main__') or importlib.import_module(module.name)\n"
        "print(finetuned.__version__, finetuned.Client.__name__)\n"
        "import contract"
    )
    done = run(installed, "python", "-c", everything)
    assert done.stdout == f"{PROJECT['project']['version']} Client\n"
    assert "No module named 'contract'" in done.stderr


@pytest.mark.parametrize(
    "words",
    [["up", "--port", "1"], ["demo"], ["models", "add", "x"], ["backup", "x"], ["restore", "x"], ["doctor"], ["down"]],
    ids=lambda words: words[0],
)
def test_installed_command_says_where_the_service_runs(installed: Path, words: list[str]) -> None:
    done = run(installed, "finetuned", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"finetuned {words[0]}: the service is not part of this package, which is the client alone; run the service "
        "from a checkout or a container image\n"
    )


def test_installed_command_says_where_datasets_are_checked(installed: Path) -> None:
    done = run(installed, "finetuned", "datasets", "check", "rows.jsonl")
    assert (done.returncode, done.stdout) == (1, "")
    assert "run it from a checkout, or let a service check the file with: finetuned datasets add FILE" in done.stderr


@pytest.mark.exhaustive
@pytest.mark.slow
def test_type_checker_sees_the_installed_types(installed: Path) -> None:
    (installed / "typed.py").write_text(TYPED)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--follow-imports=silent", "--config-file="]
    command = [*mypy, "--python-executable", str(installed / "bin" / "python"), "typed.py"]
    done = subprocess.run(command, cwd=installed, capture_output=True, text=True, timeout=280)
    assert 'Revealed type is "pathlib.Path"' in done.stdout
    assert 'Revealed type is "str"' in done.stdout.replace("builtins.", "")
    assert 'Revealed type is "datetime.datetime | None"' in done.stdout
    assert 'Missing positional argument "out" in call to "download" of "Job"' in done.stdout
    assert "import-untyped" not in done.stdout


def test_public_names_are_these() -> None:
    names = (
        "AsyncClient AsyncDataset AsyncJob Client Conflict Damaged Dataset FinetunedError InvalidRequest Job JobEvent "
        "Metrics NotAllowed NotFound Plan Refused ServiceError ServiceFailed Status TooMany UnexpectedAnswer "
        "Unreachable WaitTimeout __version__"
    )
    assert finetuned.__all__ == names.split()
    assert all(hasattr(finetuned, name) for name in finetuned.__all__)
    assert finetuned.__version__ == PROJECT["project"]["version"]


def test_client_knows_the_statuses_of_the_service() -> None:
    assert {each.value for each in finetuned.Status} == {each.value for each in status.JobStatus}
    assert {each.value for each in TERMINAL} == {each.value for each in status.TERMINAL}
