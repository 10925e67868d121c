"""What the API needs to know, read once from FINETUNED_* variables."""

from store.settings import StoreSettings


class ApiSettings(StoreSettings):
    host: str = "127.0.0.1"
    port: int = 8000
