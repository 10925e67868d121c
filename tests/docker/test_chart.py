"""What the Helm chart promises, as far as its text says. test_rendered_chart.py renders it."""

import re
import textwrap
import tomllib
from typing import Any

import jsonschema
import pytest
import yaml

from tests.docker import helm
from tests.docker.compose_files import FIXED, IN_FILES, read, services
from tests.docker.dockerfiles import ROOT
from worker.launchers.profiles import KubernetesProfile

OF_THE_POD = {f"FINETUNED_{name}" for name in [*FIXED, "WORKER", "ADDRESS", "INFERENCE_ADDRESS", "PROFILES"]}
"""Settings that follow from how the pods are connected, and from other values."""


def settable(environment: dict[str, Any]) -> set[str]:
    return {name for name in environment if not re.search(r"_FILE$|^HF_TOKEN_PATH$", name)} - OF_THE_POD


def test_chart_has_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = helm.read("Chart.yaml")
    assert chart["version"] == chart["appVersion"] == version


def test_schema_accepts_the_charts_own_values() -> None:
    jsonschema.Draft7Validator.check_schema(helm.SCHEMA)
    jsonschema.validate(helm.read("values.yaml"), helm.SCHEMA)


def test_every_value_is_in_the_file_with_a_comment() -> None:
    lines = (helm.CHART / "values.yaml").read_text().splitlines()
    for line, before in zip(lines[1:], lines, strict=False):
        if re.match(r" {0,2}\w+:", line) and not line.endswith(":"):
            assert before.strip().startswith("# "), line
    assert paths(helm.read("values.yaml")) == described(helm.SCHEMA) - {"global"}


def paths(values: Any, before: str = "") -> set[str]:
    if not isinstance(values, dict) or not values or before.endswith("resources."):
        return {before.removesuffix(".")}
    return {each for key, value in values.items() for each in paths(value, f"{before}{key}.")}


def described(schema: Any, before: str = "") -> set[str]:
    if "properties" not in schema or before.endswith("settings."):
        return {before.removesuffix(".")}
    return {each for key, value in schema["properties"].items() for each in described(value, f"{before}{key}.")}


def test_settings_are_those_of_compose() -> None:
    shared = settable(read("docker-compose.yml")["x-settings"])
    api, worker = (settable(services("docker-compose.yml")[name]["environment"]) for name in ("api", "worker"))
    assert helm.settings_of("settings") == shared
    assert helm.settings_of("api", "settings") == api - shared
    assert helm.settings_of("worker", "settings") == worker - shared
    assert not {f"FINETUNED_{name}" for name in IN_FILES} & (helm.settings_of("settings") | api | worker)


def test_profile_has_the_launchers_keys() -> None:
    assert set(helm.SCHEMA["$defs"]["profile"]["properties"]) == set(KubernetesProfile.model_fields)


def test_schema_accepts_the_manuals_values() -> None:
    manual = (ROOT / "docs/kubernetes.md").read_text()
    shown = re.findall(r"\n\n((?:    (?:registry|worker):\n?.*\n)(?:    .*\n)*)", manual)
    assert len(shown) == 2
    for each in shown:
        jsonschema.validate(yaml.safe_load(textwrap.dedent(each)), helm.SCHEMA)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"worker": {"settings": {"FINETUNED_GRACES": "1"}}}, "FINETUNED_GRACES"),
        ({"worker": {"profiles": {"a": {"cpus": 1, "memory": "1GiB"}}}}, "queue"),
        ({"worker": {"profiles": {"a": {"queue": "a", "cpus": 1, "memory": "1GiB", "gpus": 8}}}}, "gpus"),
        ({"home": {"accessMode": "ReadWriteFew"}}, "ReadWriteFew"),
        ({"databse": {}}, "databse"),
    ],
)
def test_wrong_value_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=named):
        jsonschema.validate(values, helm.SCHEMA)
