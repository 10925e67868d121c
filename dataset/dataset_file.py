"""A file of examples, and how to read it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.dataset_format import DatasetField, DatasetFormat
from contract.method import Learned


class DatasetFile(BaseModel):
    model_config = ConfigDict(frozen=True)

    path: Path
    name: str = Field(default_factory=lambda given: given["path"].name)
    """The name that its owner gave it. CSV and plain text are recognised by its suffix."""
    format: Literal["auto"] | DatasetFormat = "auto"
    columns: dict[DatasetField, str] | None = None
    """The file's column for each of our fields that it names differently."""
    learned: Learned | None = None
    """What its rows must have; None takes whatever the first row has."""
