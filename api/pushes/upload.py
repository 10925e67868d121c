"""Uploads one artifact to a hub, by api.pushes.hub_writer in a process that lives for one try."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio import from_thread

from api.pushes.hub_writer import quote
from contract.model_card import on_hub
from storage.backends import Storage
from store import artifacts
from store.artifacts import REPORT
from store.models import Artifact
from store.pushes import ClaimedPush, Uploaded

_PASSED_ON = (
    *("PATH", "LANG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    "HF_ENDPOINT",
)
_CARD = REPORT["card"]
_HOME = "home"
"""The home folder of the process that uploads, where the hub's package may write."""


class PushRefused(Exception):
    """Another try would not help."""


class PushInterrupted(Exception):
    """Another try may help."""


@dataclass(frozen=True)
class Upload:
    push: ClaimedPush
    artifact: Artifact
    token: str = field(repr=False)


def make_folder(incoming: Path, push: ClaimedPush) -> Path:
    """A new folder for all that one try leaves on the disk. Removes those of earlier tries, which were killed."""
    for claims in range(1, push.claims):
        shutil.rmtree(_folder(incoming, push.id, claims), ignore_errors=True)
    folder = _folder(incoming, push.id, push.claims)
    (folder / _HOME).mkdir(parents=True)
    return folder


def _folder(incoming: Path, push_id: str, claims: int) -> Path:
    return incoming / f"{push_id}-{claims}.partial"


def lay_out(storage: Storage, artifact: Artifact, folder: Path) -> dict[str, str]:
    """The path of each file by its name. Those in a bucket are downloaded to the folder.

    Raises FileNotFoundError, StorageUnavailable. Runs in a thread of anyio's, and ends when its task is cancelled.
    """
    laid_out = {}
    for file in artifacts.files(artifact):
        key = artifacts.key(artifact, file.name)
        path = storage.local_path(key)
        if path is None:
            path = folder / "files" / file.name
            storage.fetch(key, path, from_thread.check_cancelled)
        laid_out[file.name] = str(path)
    return laid_out


async def send(upload: Upload, files: Mapping[str, str], folder: Path, seconds: float) -> Uploaded:
    """`folder` is that of make_folder; `seconds` is the longest time without a byte. Raises PushRefused,
    PushInterrupted. No process is left, however often this is cancelled."""
    push, artifact = upload.push, upload.artifact
    given = {
        "repo": push.repo,
        "revision": push.revision,
        "private": push.private,
        "token": upload.token,
        "message": f"{artifact.name} of job {push.job_id}, trained by finetuned",
        "files": {name: path for name, path in files.items() if name != _CARD},
        "texts": {_CARD: _card(push, artifact, files[_CARD])} if _CARD in files else {},
        "seconds": seconds,
    }
    answer = await _run_writer(given, folder / _HOME)
    if "error" in answer:
        raise (PushInterrupted if answer["may_pass"] else PushRefused)(answer["error"])
    return Uploaded(**answer)


def _card(push: ClaimedPush, artifact: Artifact, path: str) -> str:
    return on_hub(Path(path).read_text(), push.repo, artifact.kind)


async def _run_writer(given: Mapping[str, Any], home: Path) -> dict[str, Any]:
    argv = [sys.executable, "-P", "-m", "api.pushes.hub_writer", str(os.getpid())]
    writer = await anyio.run_process(argv, input=json.dumps(given).encode(), env=_environment(home), check=False)
    if writer.returncode != 0:
        last = writer.stderr.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {writer.returncode}"
        raise PushInterrupted(f"the upload ended by itself: {quote(last, given['token'])}")
    answered: dict[str, Any] = json.loads(writer.stdout)
    return answered


def _environment(home: Path) -> dict[str, str]:
    """Without the secrets of the API and the operator's own token. Files go by Git LFS over HTTP, which every hub
    speaks."""
    passed_on = {name: value for name, value in os.environ.items() if name.upper() in _PASSED_ON}
    own = ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_DISABLE_TELEMETRY")
    return passed_on | dict.fromkeys((*own, "HF_HUB_DISABLE_PROGRESS_BARS"), "1") | {"HOME": str(home)}
