"""What the Dockerfiles say."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILES = [ROOT / "docker/api.Dockerfile", ROOT / "docker/worker.Dockerfile"]


def instructions(dockerfile: Path) -> list[str]:
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    return [line for line in text.replace("\\\n", " ").splitlines() if line]


def image_environment(dockerfile: Path) -> dict[str, str]:
    variables = [line.split()[1:] for line in instructions(dockerfile) if line.startswith("ENV ")]
    return dict(variable.split("=", 1) for each in variables for variable in each)
