"""The settings of a backup: those of the service that say where its data are."""

from pydantic import SecretStr

from runtime.settings import StoreSettings


class BackupSettings(StoreSettings):
    broker_url: SecretStr = SecretStr("")
    """Unused: messages are not part of a backup."""
