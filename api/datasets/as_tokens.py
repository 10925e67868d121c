"""A dataset as a model sees it: the lengths of its examples, and a preview of them."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

from api.context import Services
from api.datasets.reader import RowFile
from api.datasets.service import get_dataset
from api.model_folders import ModelFolder
from contract.dataset_format import DatasetField, DatasetFormat
from contract.failure import FailureCode, InputError
from contract.formatting import format_value
from contract.method import Method, MethodType
from dataset.lengths import TokenReport, token_report
from dataset.preview import Preview
from store import datasets
from store.access.principal import Principal
from store.models import Dataset


@dataclass(frozen=True)
class AsTokens:
    model: str
    chat_template: str | None
    """In place of the model's own."""
    max_length: int
    method: MethodType | None
    """Says what its rows must have; None takes whatever the first row has."""


def token_report_of(services: Services, who: Principal, dataset_id: str, given: AsTokens) -> TokenReport:
    """Raises DatasetNotFound, InputError, TooManyRequests."""
    file = _file(services, get_dataset(services, who, dataset_id), given.method)
    found = services.reader.measure(file, _model(services, given.model), given.chat_template)
    return token_report(found, given.max_length)


def preview_of(  # parameters: the request's
    services: Services, who: Principal, dataset_id: str, given: AsTokens, offset: int, limit: int
) -> Preview:
    """The `limit` rows after the first `offset`. Six parameters: they are the request's. Raises DatasetNotFound,
    InputError, TooManyRequests."""
    file = _file(services, get_dataset(services, who, dataset_id), given.method)
    shown = {"max_length": given.max_length, "offset": offset, "limit": limit}
    return services.reader.preview(file, _model(services, given.model), given.chat_template, **shown)


def _file(services: Services, dataset: Dataset, method: MethodType | None) -> RowFile:
    opened = partial(datasets.local_file, services.storage, services.settings, dataset)
    row_format = cast(DatasetFormat | Literal["auto"], dataset.format or "auto")
    columns = cast(dict[DatasetField, str] | None, dataset.columns)
    learned = None if method is None else Method(type=method).learns
    return RowFile(dataset.filename, row_format, columns, learned, dataset.sha256, opened)


def _model(services: Services, name: str) -> ModelFolder:
    """Raises InputError."""
    folder = services.models.find(name)
    if folder is None:
        message = (
            f"model: got {format_value(name)}; its tokenizer is not on the server: name a folder of the server's models"
        )
        raise InputError(FailureCode.MODEL_NOT_FOUND, message, "model")
    return folder
