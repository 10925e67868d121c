"""The real trainer, as processes of their own."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.events import Event, parse_event
from contract.failure import Failure


@dataclass(frozen=True)
class Outcome:
    folder: Path
    exit_code: int
    output: str

    @property
    def events(self) -> list[Event]:
        return [parse_event(line) for line in (self.folder / "events.jsonl").read_bytes().splitlines()]

    @property
    def failure(self) -> Failure:
        return Failure.model_validate_json((self.folder / "error.json").read_bytes())


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What they return. A trainer's start leaves cores idle, which another one's may use."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def command(run_dir: Path, ranks: int = 1, resume: Path | None = None) -> list[str]:
    words = ["-m", "trainer", str(run_dir), *(["--resume", str(resume)] if resume else [])]
    if ranks == 1:
        return [sys.executable, *words]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *words]


def merge(folder: Path, recipe: dict[str, Any], adapter: Path) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    requested = recipe | {"adapter": {"start_from": str(adapter)}}
    (folder / "recipe.json").write_text(json.dumps(requested))
    (folder / "export.json").write_text(json.dumps({"format": "merged", "base": "base"}))
    command = [sys.executable, "-m", "trainer.tools.export", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)
