"""The API's settings, read once from FINETUNED_* variables."""

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated

from limits import parse
from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from runtime.settings import StoreSettings
from store.access.vault import Vault

USUAL_PORT = 8000
"""Default of the `finetuned` command."""


def is_loopback(name: str) -> bool:
    """Whether a machine reaches itself by this name or address."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def _rate(value: str) -> str:
    parse(value)
    return value


class ApiSettings(StoreSettings):
    host: str = "127.0.0.1"
    port: int = USUAL_PORT
    largest_dataset: Annotated[int, Field(ge=1)] = 10 << 30
    """Most bytes of a file of examples. It is read whole when a job is posted, at about 60 MB a second."""
    secret_key: SecretStr
    """Random text that encrypts the stored secrets of owners and webhooks. Of several, separated by commas, the first
    encrypts and the others still decrypt."""
    admin_key: Annotated[SecretStr, Field(min_length=20)] | None = None
    """A key with all rights, to make the first other keys with."""
    require_keys: bool | None = None
    """Whether every request needs a key. None means: if others than this machine can reach the API, where it cannot be
    false."""
    rate_limit: Annotated[str, AfterValidator(_rate)] = "6000/minute"
    """Most requests with the keys of one owner."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses and networks of proxies in front of the API, separated by commas: only from there X-Forwarded-For and
    X-Forwarded-Proto count."""
    connections: Annotated[int, Field(ge=1)] | None = None
    """Most open connections; None, and the maximum, is what the limit of open files allows."""
    connections_per_address: Annotated[int, Field(ge=1)] | None = None
    """Most connections of one IPv4 address or IPv6 /64 network, except trusted proxies; None is 200, without a limit on
    loopback."""
    webhook_allow_private: bool = False
    """Whether webhooks may lead to addresses that are not public, such as this machine's own."""

    wandb_url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] | None = None
    """Address of the server that runs in Weights & Biases are sent to; None is the public one."""
    wandb_offline: bool = False
    """Whether runs for Weights & Biases are only written to files, below `home`, when their jobs have ended."""

    @field_validator("secret_key")
    @classmethod
    def _makes_a_vault(cls, value: SecretStr) -> SecretStr:
        Vault(value.get_secret_value())
        return value

    @field_validator("require_keys")
    @classmethod
    def _only_loopback_is_open(cls, value: bool | None, info: ValidationInfo) -> bool | None:
        host = info.data.get("host", "")
        if value is False and not is_loopback(host):
            raise ValueError(
                f"FINETUNED_HOST is {host}, by which others than this machine reach the API: without keys each of them "
                "would be its admin; leave this out, or listen on 127.0.0.1"
            )
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_proxies(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                network = ip_network(each)
            except ValueError as error:
                raise ValueError(
                    f"got {each}; give addresses or networks, separated by commas: 10.0.0.2,172.18.0.0/16"
                ) from error
            if network.prefixlen == 0:
                raise ValueError(f"got {each}, which is everybody: each could then name any address as its own")
        return value

    @property
    def incoming(self) -> Path:
        """Folder of unfinished uploads."""
        return self.home / "incoming"

    @property
    def offline_wandb_runs(self) -> Path:
        """Folder with the files of a run for each job."""
        return self.home / "wandb"

    @property
    def lengths(self) -> Path:
        """Folder of measured token lengths, by dataset and tokenizer."""
        return self.home / "cache" / "lengths"

    @property
    def needs_keys(self) -> bool:
        return bool(self.require_keys) or not is_loopback(self.host)
