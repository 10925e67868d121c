"""The Compose files as data."""

from pathlib import Path
from typing import Any

import yaml
from pydantic_settings import BaseSettings

from tests.docker.dockerfiles import ROOT

FILES = sorted([ROOT / "docker-compose.yml", *ROOT.glob("compose.*.yml")])
WHOLE = ["docker-compose.yml", "compose.worker.yml"]
"""The files that start something alone; the others are added to one of them."""
FIXED = {"DATABASE_URL", "BROKER_URL", "HOME", "HOST", "PORT", "ALLOWED_PATHS"}
"""Settings that follow from how the containers are connected."""
IN_FILES = {"DATABASE_PASSWORD", "BROKER_PASSWORD", "WORKER_PASSWORD", "ADMIN_KEY", "SECRET_KEY", "STORAGE_SECRET_KEY"}


class Loader(yaml.SafeLoader):
    """Reads Compose's own tags, such as !reset, as what they are applied to."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def read(file: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load((ROOT / file).read_text(), Loader)
    return found


def services(file: str | Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read(file)["services"]
    return found


def fields(settings: type[BaseSettings]) -> set[str]:
    return {field.upper() for field in settings.model_fields}
