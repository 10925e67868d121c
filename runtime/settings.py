"""Settings of the database, the broker and the files, read once per process from FINETUNED_* variables. A wrong one
ends the process."""

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeVar

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


class StoreSettings(BaseSettings):
    # hide_input: the error about one setting would show the others, with the passwords in their URLs.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    database_url: SecretStr
    """postgresql+psycopg://user:password@host/name"""
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
    def folders(self) -> Folders:
        return Folders(self.models, self.allowed_paths, self.datasets, self.home)


Settings = TypeVar("Settings", bound=StoreSettings)


def read_settings(kind: type[Settings]) -> Settings:
    """The settings of one kind of process. Exits with 1 and one line for each wrong variable."""
    try:
        return kind()  # type: ignore[call-arg]  # the environment gives what is required
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        sys.exit("\n".join(f"{PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in problems))
