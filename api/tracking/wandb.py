"""Weights & Biases, by api.tracking.wandb_writer in a process that lives for one send."""

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import anyio

from api.tracking.tracker import METRICS, Sent, TrackerError, points_after, position_after, run_name
from contract.formatting import truncate
from contract.status import TERMINAL, JobStatus
from store.trackings import START, Followed, News, Position, last_status

_PASSED_ON = ("PATH", "LANG", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


def is_installed() -> bool:
    return find_spec("wandb") is not None


class Wandb:
    def __init__(self, url: str | None, offline_folder: Path | None) -> None:
        """With `offline_folder` nothing is uploaded: each run is written there when its job has ended."""
        self._url, self._offline_folder = url, offline_folder
        self.whole_at_end = offline_folder is not None
        self.most_events = 1_000_000 if self.whole_at_end else 20_000
        self.interval = timedelta(seconds=2 if self.whole_at_end else 30)
        self.send_seconds = 110.0  # more than the writer's own limit

    async def send(self, followed: Followed, secret: str | None, news: News) -> Sent:
        # Offline, the run is written anew, as what an earlier send has left may be incomplete.
        position = START if self.whole_at_end else followed.position
        given = json.dumps(_given(followed, news, position)).encode()
        with self._folder(followed) as folder:
            answer = await run_writer(folder, given, self._environment(folder, secret))
        return Sent(answer.get("url") or followed.job_id, position_after(position, news))

    @contextmanager
    def _folder(self, followed: Followed) -> Iterator[Path]:
        if self._offline_folder is None:
            with tempfile.TemporaryDirectory(prefix="finetuned-wandb-") as temporary:
                yield Path(temporary)
        else:
            folder = self._offline_folder / followed.job_id
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, parents=True)
            yield folder

    def _environment(self, folder: Path, secret: str | None) -> dict[str, str]:
        """Without the secrets of the API."""
        passed_on = {name: value for name, value in os.environ.items() if name.upper() in _PASSED_ON}
        own = {"HOME": str(folder), "WANDB_ERROR_REPORTING": "false", "WANDB_API_KEY": secret or ""}
        if self._url is not None:
            own["WANDB_BASE_URL"] = self._url
        return passed_on | own | {"WANDB_MODE": "offline" if self.whole_at_end else "online"}


def _given(followed: Followed, news: News, position: Position) -> dict[str, Any]:
    place = followed.place
    reported = last_status(news)
    ended = reported is not None and reported.status in TERMINAL
    points = []
    for point in points_after(position, news):
        step = "eval_step" if "eval_loss" in point.values else "step"
        points.append({step: point.step, "_timestamp": point.time, **point.values})
    return {
        "id": followed.job_id,
        "project": place["project"],
        "entity": place["entity"],
        "name": run_name(followed),
        "tags": place["tags"],
        "config": {name: value for name, value in followed.recipe.items() if name != "tracking"},
        "metrics": METRICS,
        "points": points,
        "exit_code": (0 if reported.status is JobStatus.SUCCEEDED else 1) if reported and ended else None,
    }


async def run_writer(folder: Path, given: bytes, environment: dict[str, str]) -> dict[str, Any]:
    """What the writer answers. Raises TrackerError with the last line that it wrote otherwise. No process is left,
    however often this is cancelled."""
    argv = [sys.executable, "-P", "-m", "api.tracking.wandb_writer", str(folder)]
    # Files, since the package's own process would keep pipes open.
    with TemporaryFile() as question, TemporaryFile() as answer, TemporaryFile() as errors:
        question.write(given)
        question.seek(0)
        writer = await anyio.open_process(
            argv, stdin=question, stdout=answer, stderr=errors, env=environment, start_new_session=True
        )
        async with writer:
            try:
                exit_code = await writer.wait()
            finally:
                # Its own process of the package is in its session.
                with suppress(ProcessLookupError):
                    os.killpg(writer.pid, signal.SIGKILL)
        said, problem = (_content(file) for file in (answer, errors))
    if exit_code != 0:
        lines = problem.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {exit_code}")
        raise TrackerError(f"Weights & Biases: {truncate(last, 300)}")
    answered: dict[str, Any] = json.loads(said)
    return answered


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
