"""Settings of `finetuned up`, from its options and the FINETUNED_* variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contract.locate import refusal_reason
from finetuned.address import is_loopback

ALLOWED_PATHS = "FINETUNED_ALLOWED_PATHS"
SECRET_KEY = "FINETUNED_SECRET_KEY"

_SECRETS: Mapping[str, tuple[str, ...]] = {
    "FINETUNED_ADMIN_KEY": ("api",),
    "FINETUNED_SECRET_KEY": ("api",),
    "FINETUNED_API_KEY": (),
    "FINETUNED_DATABASE_": ("api", "worker", "migrations", "backup", "doctor"),
    "FINETUNED_BROKER_": ("api", "worker", "doctor"),
    "FINETUNED_WORKER_PASSWORD": ("migrations", "backup"),
    "FINETUNED_STORAGE_SECRET_KEY": ("api", "worker", "backup", "doctor"),
    "AWS_": ("api", "worker", "backup", "doctor"),
    "HF_TOKEN": ("worker",),
    "HUGGING_FACE_HUB_TOKEN": ("worker",),
}
"""The parts that need a secret, by the beginning of the variable's name."""


@dataclass(frozen=True)
class StackSettings:
    home: Path
    """Folder with the models, the runs, the database and the logs."""
    host: str
    port: int
    environment: Mapping[str, str]
    """Environment that the parts get; the user's own settings take precedence."""

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def has_secret_key(self) -> bool:
        """Whether the user's settings have the key that encrypts stored secrets; otherwise `secret_key_file` does."""
        return SECRET_KEY in self.environment or f"{SECRET_KEY}_FILE" in self.environment

    @property
    def secret_key_file(self) -> Path:
        return self.home / "secret_key"

    @property
    def database_url(self) -> str | None:
        """URL of an existing database; None to start one."""
        return self.environment.get("FINETUNED_DATABASE_URL")

    @property
    def broker_url(self) -> str | None:
        """URL of an existing broker; None to start one."""
        return self.environment.get("FINETUNED_BROKER_URL")

    @property
    def address(self) -> str:
        """URL of the API for a client on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def needs_keys(self) -> bool:
        setting = self.environment.get("FINETUNED_REQUIRE_KEYS", "").lower()
        return setting in ("1", "true", "t", "yes", "y", "on") or not is_loopback(self.host)

    @property
    def nothing_allowed_because(self) -> str | None:
        """Why recipes cannot use the current directory by default; None if they can, or if folders are configured."""
        return None if ALLOWED_PATHS in self.environment else refusal_reason(Path.cwd(), self.home)

    @property
    def unsafe_folder(self) -> str | None:
        """What is wrong with a configured folder, if anything is."""
        for folder in filter(None, self.environment.get(ALLOWED_PATHS, "").split(":")):
            if (why := refusal_reason(Path(folder), self.home)) is not None:
                return f"{ALLOWED_PATHS}: got {folder}; {why}"
        return None

    def part_environment(self, part: str, database_url: str, broker_url: str) -> dict[str, str]:
        """The environment of "api", "worker", "migrations", "backup" or "doctor"."""
        allowed = os.getcwd() if self.nothing_allowed_because is None else ""
        everything = (
            {ALLOWED_PATHS: allowed, "FINETUNED_LOG_FORMAT": "text"}
            | ({} if self.has_secret_key else {f"{SECRET_KEY}_FILE": str(self.secret_key_file)})
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
    """The environment without the secrets that `part` does not need; a part that _SECRETS does not name gets none."""

    def needs(name: str) -> bool:
        return all(part in parts for begins, parts in _SECRETS.items() if name.startswith(begins))

    return {name: value for name, value in environment.items() if needs(name)}


def default_home() -> Path:
    return Path("/var/lib/finetuned") if os.geteuid() == 0 else Path.home() / ".finetuned"
