"""The chart in deploy/helm, read as text and rendered by Helm's own engine."""

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.docker.dockerfiles import ROOT
from tests.support.environments import installed

CHART = ROOT / "deploy/helm/finetuned"
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
PROGRAM = Path(__file__).with_name("helm_program.py")
REQUIREMENTS = ["helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0"]

Object = dict[str, Any]


def read(file: str) -> Object:
    found: Object = yaml.safe_load((CHART / file).read_text())
    return found


def settings_of(*path: str) -> set[str]:
    """The names that the schema knows below that path of the values."""
    found = SCHEMA
    for part in path:
        found = found["properties"][part]
    return set(found["properties"])


def run(values: Object) -> Object:
    """What the chart becomes with these values, or the refusal."""
    return _run(json.dumps(values))


@functools.cache
def _run(values: str) -> Object:
    python = installed(*REQUIREMENTS) / "bin" / "python"
    given = json.dumps([str(CHART), json.loads(values)])
    done = subprocess.run([str(python), str(PROGRAM)], input=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: Object = json.loads(done.stdout)
    return found


def render(values: Object) -> dict[tuple[str, str], Object]:
    """Objects by kind and name. Those of several namespaces have theirs before the name."""
    found = run(values)
    assert found.get("refusal") is None
    assert found["lint"] == []
    objects = {(each["kind"], _name(each)): each for each in found["objects"]}
    assert len(objects) == len(found["objects"])
    return objects


def _name(given: Object) -> str:
    metadata = given["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
