"""What `finetuned up` needs to know: options and FINETUNED_* variables, read once."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000


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

    def part_environment(self, database_url: str, broker_url: str) -> dict[str, str]:
        return (
            {"FINETUNED_ALLOWED_PATHS": os.getcwd(), "FINETUNED_LOG_FORMAT": "text"}
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


def default_home() -> Path:
    return Path("/var/lib/finetuned") if os.geteuid() == 0 else Path.home() / ".finetuned"
