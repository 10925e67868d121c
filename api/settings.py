"""What the API needs to know, read once from FINETUNED_* variables."""

from typing import Annotated

from pydantic import Field

from store.settings import StoreSettings


class ApiSettings(StoreSettings):
    host: str = "127.0.0.1"
    port: int = 8000
    largest_dataset: Annotated[int, Field(ge=1)] = 10 << 30
    """Bytes of a file of examples. It is read whole when a job is posted, at some 60 MB a second."""
