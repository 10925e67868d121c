"""What database, broker and files need: read once per process from FINETUNED_* variables, fatal when wrong."""

import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, SecretStr, StringConstraints, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contract.locate import Folders, why_not_allowed

PREFIX = "FINETUNED_"


class StoreSettings(BaseSettings):
    # hide_input: the error about one setting would show the others, passwords in their URLs included.
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    database_url: SecretStr
    """postgresql+psycopg://user:password@host/name"""
    broker_url: SecretStr
    """redis://host:6379/0, or redis+socket:///absolute/path"""
    home: Path
    """Holds models/ and runs/. The API and every worker see the same folder."""
    log_format: Literal["json", "text"] | None = None
    """json, or text to be read by people; None is text on a terminal, else json."""
    allowed_paths: Annotated[list[Path], NoDecode] = Field(default=[])
    """Folders from which a recipe may take its dataset and model, besides models/ and datasets/ of `home`; separated by
    ":" in the variable."""

    storage: Annotated[str, StringConstraints(pattern=r"^s3://[a-z0-9][a-z0-9.-]+(/[\w-][\w.=-]*)*/?$")] | None = None
    """s3://BUCKET/PREFIX, where datasets and artifacts are kept; None keeps them in `home`. How to reach the bucket is
    in the AWS_* variables, and nowhere else."""

    @field_validator("allowed_paths", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part for part in value.split(":") if part] if isinstance(value, str) else value

    @field_validator("allowed_paths")
    @classmethod
    def _leave_private_files_alone(cls, value: list[Path], info: ValidationInfo) -> list[Path]:
        if "home" in info.data:  # else its own fault is reported
            for folder in value:
                if (why := why_not_allowed(folder, info.data["home"])) is not None:
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
        """Copies of what lies in a bucket, to be read. What nobody reads may be removed: it is fetched again."""
        return self.home / "cache" / "datasets"

    @property
    def folders(self) -> Folders:
        return Folders(self.models, self.allowed_paths, self.datasets, self.home)


Settings = TypeVar("Settings", bound=StoreSettings)


def read_settings(kind: type[Settings]) -> Settings:
    """Ends the process with 1, and a line for each variable at fault."""
    try:
        return kind()  # type: ignore[call-arg]  # the environment gives what is required
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        sys.exit("\n".join(f"{PREFIX}{str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in problems))
