from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from contract import patterns
from contract.dataset_format import DatasetField, DatasetFormat
from contract.section import Text
from contract.tracking import SecretName
from dataset.dataset_report import DatasetReport
from store.models import Dataset

Columns = Annotated[dict[DatasetField, Text], Field(min_length=1)]


class AboutDataset(BaseModel):
    """What the owner says about a dataset."""

    model_config = ConfigDict(extra="forbid", strict=True)

    purpose: Literal["fine-tune"] = "fine-tune"
    format: DatasetFormat | None = None
    """How a row is written; null detects it by the first row's fields."""
    columns: Columns | None = None
    """The file's own names of the format's fields."""
    expires_after_seconds: Annotated[int, Field(ge=3600, le=31_536_000)] | None = None
    """Seconds after which it is deleted, as soon as no unfinished job needs it; null keeps it."""


class DatasetReference(AboutDataset):
    """A file that is on the server, or that the server fetches from a hub."""

    path: Text | None = None
    """A path on the server: absolute, or relative to one of the server's allowed folders. The file stays where it
    is."""
    hub: Annotated[str, StringConstraints(pattern=patterns.HUB_REPO)] | None = None
    """A data set of the hub, such as "org/name"."""
    file: Annotated[str, StringConstraints(pattern=patterns.HUB_FILE)] | None = None
    """Its file, such as "data/train.jsonl"."""
    revision: Annotated[str, StringConstraints(pattern=patterns.HUB_REVISION)] | None = None
    """A branch, a tag or a commit; null is the main branch."""
    secret: SecretName | None = None
    """Name of the stored secret with the hub's token, for a data set that is not public."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give path, or hub and file")
        if (self.hub is None) != (self.file is None) or (self.hub is None and self.revision is not None):
            raise ValueError("file and revision are those of a hub's data set: give hub and file, or path alone")
        if self.hub is None and self.secret is not None:
            raise ValueError("secret has the token of a hub: give hub and file too")
        if any(part in ("", ".", "..") for part in (self.file or "file").split("/")):
            raise ValueError("file is a path within the data set, such as data/train.jsonl")
        return self


class DatasetOut(BaseModel):
    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    sha256: str | None
    """Null for a file on the server, at `path`."""
    path: str | None
    source: str | None
    """Where it was downloaded from."""
    status: Literal["uploaded", "processed", "error"]
    """"uploaded": its rows are being checked. "error": it cannot be trained on."""
    status_details: str | None
    """The problem, if its status is error."""
    format: DatasetFormat | None
    columns: Columns | None
    rows: int | None
    created_at: datetime
    expires_at: datetime | None


class DatasetDetail(DatasetOut):
    report: DatasetReport | None
    """Result of the check; null before it is done."""


class DatasetPage(BaseModel):
    data: list[DatasetOut]
    has_more: bool


class DatasetDeleted(BaseModel):
    id: str
    deleted: bool


def dataset_out(dataset: Dataset) -> DatasetOut:
    return DatasetOut.model_validate(dataset, from_attributes=True)


def dataset_detail(dataset: Dataset) -> DatasetDetail:
    return DatasetDetail.model_validate(dataset, from_attributes=True)
