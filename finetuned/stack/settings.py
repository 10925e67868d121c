"""What `finetuned up` needs to know: options and FINETUNED_* variables, read once."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contract.locate import why_not_allowed

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
ALLOWED_PATHS = "FINETUNED_ALLOWED_PATHS"

_SECRETS: Mapping[str, tuple[str, ...]] = {
    "FINETUNED_ADMIN_KEY": ("api",),
    "FINETUNED_API_KEY": (),
    "FINETUNED_DATABASE_URL": ("api", "worker", "migrations"),
    "FINETUNED_BROKER_URL": ("api", "worker"),
    "AWS_": ("api", "worker"),
    "HF_TOKEN": ("worker",),
    "HUGGING_FACE_HUB_TOKEN": ("worker",),
}
"""The parts that need a variable, by how its name begins."""


@dataclass(frozen=True)
class StackSettings:
    home: Path
    """Holds the models, the runs, the database and the logs."""
    host: str
    port: int
    environment: Mapping[str, str]
    """Of the parts; what is set there already is left as it is."""

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def database_url(self) -> str | None:
        """Of a database that is there already; None to start one."""
        return self.environment.get("FINETUNED_DATABASE_URL")

    @property
    def broker_url(self) -> str | None:
        """Of a broker that is there already; None to start one."""
        return self.environment.get("FINETUNED_BROKER_URL")

    @property
    def address(self) -> str:
        """Where a client on this machine reaches the API."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def needs_keys(self) -> bool:
        said = self.environment.get("FINETUNED_REQUIRE_KEYS", "").lower()
        return said in ("1", "true", "t", "yes", "y", "on") or not is_loopback(self.host)

    @property
    def nothing_allowed_because(self) -> str | None:
        """Why the folder where we were started is not taken for the allowed one, where none is named."""
        return None if ALLOWED_PATHS in self.environment else why_not_allowed(Path.cwd(), self.home)

    @property
    def unsafe_folder(self) -> str | None:
        """What is wrong with a folder that the operator has named."""
        for folder in filter(None, self.environment.get(ALLOWED_PATHS, "").split(":")):
            if (why := why_not_allowed(Path(folder), self.home)) is not None:
                return f"{ALLOWED_PATHS}: got {folder}; {why}"
        return None

    def part_environment(self, part: str, database_url: str, broker_url: str) -> dict[str, str]:
        """Of "api", "worker" or "migrations"."""
        allowed = os.getcwd() if self.nothing_allowed_because is None else ""
        everything = (
            {ALLOWED_PATHS: allowed, "FINETUNED_LOG_FORMAT": "text"}
            | dict(self.environment)
            | {
                "FINETUNED_DATABASE_URL": database_url,
                "FINETUNED_BROKER_URL": broker_url,
                "FINETUNED_HOME": str(self.home),
                "FINETUNED_HOST": self.host,
                "FINETUNED_PORT": str(self.port),
                "PYTHONUNBUFFERED": "1",
            }
        )
        return with_secrets_of(part, everything)


def with_secrets_of(part: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, without the secrets that a part does not need; any other name is of one that needs none."""

    def needs(name: str) -> bool:
        return all(part in parts for begins, parts in _SECRETS.items() if name.startswith(begins))

    return {name: value for name, value in environment.items() if needs(name)}


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_home() -> Path:
    return Path("/var/lib/finetuned") if os.geteuid() == 0 else Path.home() / ".finetuned"
