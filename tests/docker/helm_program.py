"""Run by the Python of an environment with Helm: reads a chart's folder and values as JSON, and prints what they
render, or Helm's refusal. Each manifest must fit the schemas of Kubernetes, where an unknown field is wrong."""

import json
import sys

import kubernetes_validate
import yaml
from helm_python import Chart, HelmError
from helm_python.chart import lint

VERSIONS = ["1.27", "1.32", "1.37"]
_WARNING = 2


def main() -> None:
    folder, values = json.load(sys.stdin)
    try:
        found = [each for each in lint(folder, values, strict=True)["messages"] if each["severity"] >= _WARNING]
        with Chart.load(folder) as chart:
            rendered = chart.render(values, name="finetuned", namespace="ml")
    except HelmError as error:
        json.dump({"refusal": str(error)}, sys.stdout)
        return
    notes = rendered.pop("finetuned/templates/NOTES.txt")
    objects = [each for text in rendered.values() for each in yaml.safe_load_all(text) if each]
    for each in objects:
        for version in VERSIONS:
            kubernetes_validate.validate(each, version, strict=True)
    json.dump({"lint": found, "objects": objects, "notes": notes}, sys.stdout)


main()
