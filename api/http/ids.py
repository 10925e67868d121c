"""Ids in paths and queries. Text that can be no id raises the error of one that does not exist: PostgreSQL does not
take every text as a parameter."""

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator

from contract.formatting import truncate
from store import datasets
from store.errors import DatasetNotFound, DeliveryNotFound, JobNotFound, KeyNotFound, SweepNotFound, WebhookNotFound

LARGEST_INTEGER = 2**31 - 1
"""The largest seq or step that a column holds."""


def _id(prefix: str, missing: Callable[[str], Exception]) -> Callable[[str], str]:
    pattern = re.compile(prefix + "_[0-9a-f]{24}")

    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise missing(truncate(value))
        return value

    return check


def check_dataset_id(value: str) -> str:
    """Raises DatasetNotFound."""
    if not datasets.is_id(value):
        raise DatasetNotFound(truncate(value))
    return value


JobId = Annotated[str, AfterValidator(_id("job", JobNotFound))]
SweepId = Annotated[str, AfterValidator(_id("sweep", SweepNotFound))]
DatasetId = Annotated[str, AfterValidator(check_dataset_id)]
KeyId = Annotated[str, AfterValidator(_id("key", KeyNotFound))]
WebhookId = Annotated[str, AfterValidator(_id("wh", WebhookNotFound))]
DeliveryId = Annotated[str, AfterValidator(_id("msg", DeliveryNotFound))]
