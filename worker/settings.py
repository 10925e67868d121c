"""The settings of a worker, read once from FINETUNED_* variables."""

import re
import shlex
import shutil
import socket
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, field_validator
from pydantic_settings import NoDecode

from runtime.settings import Seconds, StoreSettings
from store.jobs.attempts import Retries
from worker.launchers.profiles import Profile, read_profiles


def _check_address(given: str) -> str:
    """A host name or an IP address, without a port."""
    try:
        found = ip_address(given)
    except ValueError:
        if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", given) is None:
            raise ValueError("give a host name or an IP address, without a port and without brackets") from None
        return given
    if found.is_unspecified or "%" in given:
        raise ValueError("give the address by which the API reaches this machine")
    return given


def _check_command(given: list[str] | None) -> list[str] | None:
    if not given:
        return None
    if shutil.which(given[0]) is None:
        raise ValueError("there is no such program; give the path of `vllm` in its environment")
    return given


class WorkerSettings(StoreSettings):
    worker: Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,100}$")] = Field(default_factory=socket.gethostname)
    """The unique name of this worker. A worker that starts later with the same name replaces it."""
    address: str = Field(default_factory=socket.gethostname)
    """The name or address by which other machines reach this one, for jobs on several machines."""
    slots: Annotated[int, Field(ge=1)] = 1
    """Jobs at once on a machine without GPUs. With GPUs, the GPUs are the limit."""
    lease: Seconds = timedelta(seconds=10)
    """After so long without a heartbeat a worker loses its jobs."""
    grace: Seconds = timedelta(seconds=45)
    """How long a trainer may take to stop before it is killed. More than torchrun's own 30 s for its ranks to save."""
    cut_off: Seconds = timedelta(minutes=2)
    """A trainer saves and stops when its worker cannot reach the database for so long."""
    disk_reserve: Annotated[int, Field(ge=0)] = 2 << 30
    """With fewer bytes free in the home folder no attempt starts here; running ones may use them up. 0 is no limit."""
    max_retries: Annotated[int, Field(ge=0)] = 3
    """Retries in a row of a job that fails by the infrastructure and makes no progress."""
    retry_wait: Seconds = timedelta(seconds=2)
    """The delay before the first retry; it doubles with each further one."""
    longest_retry_wait: Seconds = timedelta(minutes=5)
    """The longest delay before a retry."""
    inference: Literal["preemptible", "kept", "off"] = "preemptible"
    """Whether this worker runs inference servers, for chat, on devices that no job uses: "preemptible" gives such a
    device to the first job that wants it, "kept" after the server's end."""
    inference_address: Annotated[str, AfterValidator(_check_address)] = "127.0.0.1"
    """Address at which they listen, and by which the API reaches them."""
    inference_idle: Seconds = timedelta(minutes=10)
    """An inference server ends after so long without a request."""
    inference_adapters: Annotated[int, Field(ge=1)] = 16
    """Most adapters that each keeps loaded."""
    inference_batch: Annotated[int, Field(ge=1)] = 16
    """Most answers that each makes at once. Others wait."""
    inference_vllm: Annotated[list[str] | None, NoDecode, AfterValidator(_check_command)] = None
    """vLLM's own command, in an environment of its own. With it vLLM answers, and has a device for itself."""
    inference_vllm_options: Annotated[list[str], NoDecode] = Field(default=[])
    """Further options of `vllm serve`. Every user of the machine can read them."""
    profiles: Annotated[dict[str, Profile], NoDecode, BeforeValidator(read_profiles)] = Field(default={})
    """Ways to run jobs on a cluster, by name, from the JSON file that the variable names. With any, this worker hands
    its jobs to that cluster and trains nothing on this machine."""
    trainer: Annotated[list[str] | None, NoDecode] = None
    """The command that trains a run folder, which is appended to it; None is the built-in trainer, under torchrun if
    there are several ranks. Every job shows it, so keep secrets out of it."""

    exporter: Annotated[list[str] | None, NoDecode] = None
    """The command that makes an export in a run folder, which is appended to it; None is
    `python -m trainer.tools.export`."""

    @property
    def cache(self) -> Path:
        """Where trainers keep tokenised datasets."""
        return self.home / "cache"

    @property
    def unseen(self) -> timedelta:
        """How long the trainer of an unreachable worker can live: until it is cut off, plus the grace to stop."""
        return self.cut_off + self.grace

    @property
    def retries(self) -> Retries:
        return Retries(self.max_retries, self.retry_wait, self.longest_retry_wait)

    @property
    def inference_problem(self) -> str | None:
        """Why the API may not reach the inference servers of this worker."""
        if self.inference == "off" or not _is_loopback(self.inference_address):
            return None
        database = urlsplit(self.database_url.get_secret_value()).hostname
        if database is None or _is_loopback(database):
            return None
        return (
            f"inference servers listen on {self.inference_address}, but the database is on {database}: if the API runs "
            "on another machine, chat does not work here; set FINETUNED_INFERENCE_ADDRESS to this machine's address"
        )

    @field_validator("trainer", "exporter", "inference_vllm", "inference_vllm_options", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return shlex.split(value) if isinstance(value, str) else value


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
