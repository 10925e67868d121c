"""Settings of the database, the broker and the files, read once per process from FINETUNED_* variables. A wrong one
ends the process. FINETUNED_NAME_FILE names a file that holds the value of FINETUNED_NAME; an empty one sets nothing."""

import os
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contract.locate import Folders, refusal_reason

PREFIX = "FINETUNED_"
FOREVER = "forever"


def _seconds(given: object) -> object:
    return float(given) if isinstance(given, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", given) else given


Seconds = Annotated[timedelta, BeforeValidator(_seconds)]
"""A plain number of seconds, or a duration in ISO 8601 such as PT10S."""

Kept = Annotated[
    Annotated[timedelta, Field(ge=timedelta(0))] | None,
    BeforeValidator(lambda given: None if given == FOREVER else _seconds(given)),
]
"""How long something is kept: as Seconds, or "forever", which is None."""


class DatabaseSettings(BaseSettings):
    # hide_input: the error about one setting would show the others, with the passwords in their URLs.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    database_password: SecretStr | None = None
    """The password of a database_url that has none."""
    database_url: SecretStr
    """postgresql+psycopg://user:password@host/name"""

    @field_validator("database_url")
    @classmethod
    def _with_database_password(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        return with_password(value, info.data.get("database_password"))


class StoreSettings(DatabaseSettings):
    broker_password: SecretStr | None = None
    """The password of a broker_url that has none."""
    broker_url: SecretStr
    """redis://host:6379/0, or redis+socket:///absolute/path"""
    home: Path
    """The folder with models/ and runs/, which the API and every worker share."""
    log_format: Literal["json", "text"] | None = None
    """json or text; None is text on a terminal and json elsewhere."""
    allowed_paths: Annotated[list[Path], NoDecode] = Field(default=[])
    """Folders, separated by ":", whose datasets and models a recipe may use besides models/ and datasets/ of `home`."""

    storage: Annotated[str, StringConstraints(pattern=r"^s3://[a-z0-9][a-z0-9.-]+(/[\w-][\w.=-]*)*/?$")] | None = None
    """s3://BUCKET/PREFIX, where datasets and artifacts are stored; None stores them in `home`. The AWS_* variables say
    how to reach the bucket."""
    storage_secret_key: SecretStr | None = None
    """The secret key of the bucket, instead of AWS_SECRET_ACCESS_KEY."""

    @field_validator("broker_url")
    @classmethod
    def _with_broker_password(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        return with_password(value, info.data.get("broker_password"))

    keep_run_folders: Kept = timedelta(days=7)
    """How long after a job's end the run folders of its earlier attempts are kept, and with a bucket all of its run
    folders. Artifacts and training checkpoints in them are kept on."""
    keep_training_checkpoints: Kept = timedelta(days=30)
    """How long after its end the training checkpoints of a job are kept, from which a retry continues."""
    keep_logs: Kept = None
    """How long after a job's end its log is kept."""
    keep_datasets: Kept = None
    """How long an uploaded dataset is kept that no job uses any more."""
    keep_exports: Kept = None
    """How long an export's merged model is kept."""

    @field_validator("allowed_paths", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part for part in value.split(":") if part] if isinstance(value, str) else value

    @field_validator("allowed_paths")
    @classmethod
    def _leave_private_files_alone(cls, value: list[Path], info: ValidationInfo) -> list[Path]:
        if "home" in info.data:  # otherwise the error about home is reported
            for folder in value:
                if (why := refusal_reason(folder, info.data["home"])) is not None:
                    raise ValueError(f"got {folder}; {why}")
        return value

    @property
    def models(self) -> Path:
        return self.home / "models"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def datasets(self) -> Path:
        return self.home / "datasets"

    @property
    def fetched_datasets(self) -> Path:
        """Cached copies of datasets in a bucket. One that nobody reads may be deleted: it is fetched again."""
        return self.home / "cache" / "datasets"

    @property
    def fetched_adapters(self) -> Path:
        """Cached copies of adapters in a bucket, under their keys. One that nobody reads may be deleted."""
        return self.home / "cache" / "adapters"

    @property
    def folders(self) -> Folders:
        return Folders(self.models, self.allowed_paths, self.datasets, self.home)


def with_password(url: SecretStr, password: SecretStr | None) -> SecretStr:
    """The URL with the password behind its user. Raises ValueError if it names no user, or has a password."""
    if password is None:
        return url
    parts = urlsplit(url.get_secret_value())
    if parts.password is not None:
        raise ValueError("has a password, and there is a setting with another; use one of them")
    if not parts.username:
        raise ValueError("names no user whose password it could be; write USER@ before the host")
    user, _, host = parts.netloc.rpartition("@")
    secret = quote(password.get_secret_value(), safe="")
    return SecretStr(parts._replace(netloc=f"{user.removesuffix(':')}:{secret}@{host}").geturl())


Settings = TypeVar("Settings", bound=DatabaseSettings)


def read_settings(kind: type[Settings]) -> Settings:
    """The settings of one kind of process. Exits with 1 and one line for each wrong variable."""
    values, problems = _read_files(kind)
    if not problems:
        try:
            return kind(**values)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            problems = [f"{PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in found]
    sys.exit("\n".join(problems))


def _read_files(kind: type[DatabaseSettings]) -> tuple[dict[str, Any], list[str]]:
    """The values of settings that are in files, and what is wrong with those files."""
    values: dict[str, Any] = {}
    problems = []
    for field in kind.model_fields:
        name = f"{PREFIX}{field.upper()}"
        file = os.environ.get(f"{name}_FILE")
        if file is None:
            continue
        try:
            value = Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}_FILE: cannot read {file}: {error}")
            continue
        if value and name in os.environ:
            problems.append(f"{name}_FILE: {name} is set too; use one of them")
        elif value:
            values[field] = value
    return values, problems
