"""The address of the database, which is all that a migration needs."""

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class MigrationSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FINETUNED_", frozen=True, hide_input_in_errors=True)

    database_url: SecretStr
