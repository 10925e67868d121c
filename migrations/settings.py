"""The settings of the migrations."""

from pydantic import SecretStr

from runtime.settings import DatabaseSettings


class MigrationSettings(DatabaseSettings):
    worker_password: SecretStr | None = None
    """The password of the database's role finetuned_worker. None makes no such role."""
