"""Prometheus' rules and docs/operations.md against the metrics that the service has."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operations.md").read_text()
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "docker" / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
OURS = re.compile(r"\bfinetuned_\w+")


@pytest.fixture
def families(client: TestClient) -> dict[str, dict[str, set[str]]]:
    """The labels of each family of the service, with their values, and the names of its samples as keys too."""
    client.get("/health")
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            for name in {family.name, sample.name} if family.name.startswith("finetuned_") else ():
                labels = found.setdefault(name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return found


def test_page_has_every_metric_with_its_labels(families: dict[str, dict[str, set[str]]]) -> None:
    rows = re.findall(r"^\| `(finetuned_\w+)` \|([^|]*)\|", PAGE, re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    suffixes = ("_total", "_bucket", "_count", "_sum", "_created")
    exposed = {name: set(labels) - {"le"} for name, labels in families.items() if not name.endswith(suffixes)}
    assert documented == exposed


def test_rules_name_existing_metrics_labels_and_values(families: dict[str, dict[str, set[str]]]) -> None:
    for rule in RULES:
        for name, _, matchers in re.findall(r"\b(finetuned_\w+)(\{([^}]*)\})?", rule["expr"]):
            assert name in families, (rule["alert"], name)
            for label, operator, value in re.findall(r'(\w+)(=~?)"([^"]*)"', matchers):
                assert label in families[name], (rule["alert"], label)
                assert operator == "=~" or value in families[name][label], (rule["alert"], value)


def test_each_alert_says_what_is_wrong_and_the_page_what_to_do() -> None:
    advised = re.findall(r"^\| `(Finetuned\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
    assert [name for name, _ in advised] == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"].endswith(".")
    assert {name for rule in RULES for name in OURS.findall(rule["expr"])} >= {"finetuned_disk_free_bytes"}
