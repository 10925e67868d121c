"""What the Compose files promise, as far as their text says: nothing is started here. tests/deploy/run starts them."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from migrations.settings import MigrationSettings
from tests.docker.compose_files import FILES, FIXED, IN_FILES, WHOLE, fields, read, services
from tests.docker.dockerfiles import DOCKERFILES, ROOT, image_environment
from worker.settings import WorkerSettings

PROCESSES: list[tuple[str, str, type[BaseSettings]]] = [
    ("docker-compose.yml", "migrate", MigrationSettings),
    ("docker-compose.yml", "api", ApiSettings),
    ("docker-compose.yml", "worker", WorkerSettings),
    ("compose.worker.yml", "worker", WorkerSettings),
]
every_process = pytest.mark.parametrize(("file", "service", "settings"), PROCESSES)
every_whole_file = pytest.mark.parametrize("file", WHOLE)


def env_example() -> tuple[set[str], set[str]]:
    """The variables that .env.example sets, and those that it offers."""
    text = (ROOT / ".env.example").read_text()
    return set(re.findall(r"^(\w+)=", text, flags=re.MULTILINE)), set(re.findall(r"^#(\w+)=", text, flags=re.MULTILINE))


def test_no_two_services_build_one_image() -> None:
    for file in FILES:
        built = [each["image"] for each in services(file).values() if "build" in each]
        assert len(built) == len(set(built))


def test_image_that_two_services_run_is_built_by_the_first_to_start() -> None:
    api, migrate = services("docker-compose.yml")["api"], services("docker-compose.yml")["migrate"]
    assert (api["image"], "build" in api, "build" in migrate) == (migrate["image"], False, True)
    assert api["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_no_image_leaves_a_volume_without_a_name() -> None:
    declared = {"postgres": "/var/lib/postgresql", "valkey": "/data", "caddy": "/data", "prometheus": "/prometheus"}
    for name, path in declared.items():
        service = services("docker-compose.yml")[name]
        mounted = [each.split(":")[1] for each in service.get("volumes", [])] + service.get("tmpfs", [])
        assert path in mounted


def test_manual_requires_compose_2() -> None:
    manual = (ROOT / "docs/deploy.md").read_text()
    assert "Compose 2.24" in manual
    assert "docker-compose 1" not in manual


def test_every_image_checks_its_health() -> None:
    assert [path.name for path in DOCKERFILES if "HEALTHCHECK" not in path.read_text()] == []
    external = services("docker-compose.yml")
    assert all("healthcheck" in external[name] for name in ("postgres", "valkey"))


def test_worker_stop_grace_exceeds_its_trainers() -> None:
    for file in WHOLE:
        grace = seconds(services(file)["worker"]["stop_grace_period"])
        assert timedelta(seconds=grace) > WorkerSettings.model_fields["grace"].default + timedelta(seconds=10)


def seconds(period: str) -> int:
    return int(period.removesuffix("s"))


@every_process
def test_compose_sets_every_setting(
    file: str, service: str, settings: type[BaseSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment = services(file)[service]["environment"]
    image = image_environment(DOCKERFILES[0]) if service == "api" else {}
    names = {
        name.removeprefix("FINETUNED_").removesuffix("_FILE") for name in {*environment, *image} if "FINETUNED_" in name
    }
    assert names == fields(settings)
    for name, value in {**image, **environment}.items():
        if name.startswith("FINETUNED_") and not name.endswith("_FILE") and value is not None:
            monkeypatch.setenv(name, substituted(value))
    monkeypatch.setenv("FINETUNED_SECRET_KEY", "-" * 32)  # required, and in a file
    settings()


def substituted(value: str) -> str:
    """As Compose has it where each variable without a default is "x"."""
    defaults = re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)?\}", lambda given: given[1] or "x", value)
    return re.sub(r"\$\w+", "x", defaults)


@every_process
def test_secrets_come_as_files(file: str, service: str, settings: type[BaseSettings]) -> None:
    definition = services(file)[service]
    for name in fields(settings) & IN_FILES:
        path = definition["environment"][f"FINETUNED_{name}_FILE"]
        assert path.removeprefix("/run/secrets/") in definition["secrets"]
    assert not {f"FINETUNED_{name}" for name in IN_FILES} & set(definition["environment"])


def test_init_writes_every_secret() -> None:
    script = (ROOT / "docker/init").read_text()
    for file in WHOLE:
        for name, source in read(file)["secrets"].items():
            assert source == {"file": f"secrets/{name}"}
            assert re.search(rf"\b{name}\b", script)


@every_whole_file
def test_worker_has_neither_superuser_nor_admin_key(file: str) -> None:
    worker = services(file)["worker"]
    assert worker["secrets"] == ["worker_database_password", "worker_broker_password", "storage_secret_key", "hf_token"]
    environment = worker["environment"]
    assert environment["FINETUNED_DATABASE_URL"].startswith("postgresql+psycopg://finetuned_worker@")
    assert environment["FINETUNED_BROKER_URL"].startswith("redis://worker@")
    assert "FINETUNED_ADMIN_KEY_FILE" not in environment


def test_both_worker_files_agree() -> None:
    one, other = (services(file)["worker"] for file in WHOLE)
    differing = {name for name in {*one, *other} if one.get(name) != other.get(name)}
    assert differing == {"environment", "volumes", "network_mode", "depends_on"}
    assert set(one["environment"]) == set(other["environment"])


def test_api_and_the_worker_see_the_same_files() -> None:
    api, worker = (services("docker-compose.yml")[name] for name in ("api", "worker"))
    homes = {image_environment(dockerfile)["FINETUNED_HOME"] for dockerfile in DOCKERFILES}
    users = {re.findall(r"useradd --uid (\d+)", dockerfile.read_text())[0] for dockerfile in DOCKERFILES}
    assert len(homes) == len(users) == 1
    assert api["volumes"] == worker["volumes"]
    assert api["volumes"][0].endswith(f":{homes.pop()}")


@every_whole_file
def test_every_container_is_locked_down(file: str) -> None:
    for name, service in services(file).items():
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "max-size" in service["logging"]["options"], name


def test_only_this_machine_reaches_the_service_by_default() -> None:
    published = [port for each in services("docker-compose.yml").values() for port in each.get("ports", [])]
    assert len(published) == 4
    assert all(re.match(r"\$\{\w+:-127\.0\.0\.1:\d+\}:\d+$", port) for port in published)


def test_env_example_has_every_variable_of_compose() -> None:
    given, offered = env_example()
    named: set[str] = set()
    for file in FILES:
        text = re.sub(r"\$\$.*", "", (ROOT / file).read_text())
        named |= set(re.findall(r"\$\{(\w+)", text))
        for service in services(file).values():
            named |= {name for name, value in service.get("environment", {}).items() if value is None}
    assert named - {"FINETUNED_REVISION"} == (given | offered) - {"COMPOSE_FILE", "COMPOSE_PROFILES"}


def test_env_example_and_the_manual_have_every_setting() -> None:
    _, offered = env_example()
    everything = fields(ApiSettings) | fields(WorkerSettings)
    settable = {f"FINETUNED_{name}" for name in everything - FIXED - IN_FILES}
    assert settable <= offered
    rows = [line for line in (ROOT / "docs/deploy.md").read_text().splitlines() if line.startswith("| `FINETUNED_")]
    documented = {name for line in rows for name in re.findall(r"`(FINETUNED_\w+)`", line.split("|")[1])}
    of_the_command = {"FINETUNED_URL", "FINETUNED_API_KEY", "FINETUNED_OWNER"}
    assert documented - of_the_command == {f"FINETUNED_{name}" for name in everything | fields(MigrationSettings)}


def test_dashboard_asks_for_metrics_that_exist() -> None:
    text = (ROOT / "docker/grafana/dashboards/finetuned.json").read_text()
    queried = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bfinetuned_\w+", text)}
    documented = set(re.findall(r"`(finetuned_\w+)", (ROOT / "docs/operations.md").read_text()))
    assert len(queried) > 8
    assert queried <= documented


def test_images_are_tagged_with_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for file in [*FILES, ROOT / ".env.example"]:
        assert set(re.findall(r"FINETUNED_VERSION(?::-|=)([\d.]+)", file.read_text())) <= {version}
    ours = [
        each["image"] for file in FILES for each in services(file).values() if "finetuned-" in each.get("image", "")
    ]
    assert all(image.endswith(f":${{FINETUNED_VERSION:-{version}}}") for image in ours)


def test_api_trusts_the_proxys_address_alone() -> None:
    each = services("docker-compose.yml")
    proxy, api = (each[name]["networks"]["proxy"]["ipv4_address"] for name in ("caddy", "api"))
    trusted = each["api"]["environment"]["FINETUNED_TRUSTED_PROXIES"]
    assert trusted == f"${{FINETUNED_TRUSTED_PROXIES:-{proxy}}}"
    assert proxy != api
