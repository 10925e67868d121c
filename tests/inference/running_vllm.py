"""vLLM behind the engine of an inference server, in this process."""

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.inference import Piece, ServerSpec, VllmSpec
from inference.answers import Answers
from inference.prompts import Prompts
from inference.vllm.engine import VllmEngine
from inference.vllm.serving import vllm_engine
from tests.inference.running_loop import A_DAY, pieces, request

FAKE_VLLM = (sys.executable, "-P", str(Path(__file__).parents[1] / "support" / "fake_vllm.py"))


@dataclass
class RunningVllm:
    folder: Path
    prompts: Prompts
    engine: VllmEngine
    ended: list[Exception] = field(default_factory=list)
    """What ended it."""

    def run(self, idle_seconds: float) -> None:
        try:
            self.engine.run(idle_seconds)
        except Exception as error:
            self.ended.append(error)

    def submit(self, text: str, adapter: Path | None = None, n: int = 1, **sampling: Any) -> Answers:
        answers = self.prompts.read(request(text, adapter, n, **sampling))
        assert self.engine.submit(answers) is None
        return answers

    def answer(self, text: str, adapter: Path | None = None, n: int = 1, **sampling: Any) -> list[Piece]:
        return pieces(self.submit(text, adapter, n, **sampling))

    def requests(self, path: str = "") -> list[dict[str, Any]]:
        """The requests that the fake got on a route, or all that it has noted."""
        lines = (self.folder / "requests.jsonl").read_text().splitlines()
        return [each for each in map(json.loads, lines) if path in ("", each.get("path"))]


@contextmanager
def running_vllm(
    model: Path,
    folder: Path,
    *options: str,
    command: Sequence[str] = FAKE_VLLM,
    adapters: int = 8,
    batch: int = 16,
    idle_seconds: float = A_DAY,
) -> Iterator[RunningVllm]:
    spec = server_spec(model, *options, command=command, adapters=adapters, batch=batch)
    assert spec.vllm is not None
    with chdir(folder), vllm_engine(spec, spec.vllm, folder, threading.Event()) as started:
        assert started is not None
        running = RunningVllm(folder, *started)
        thread = threading.Thread(target=running.run, args=(idle_seconds,))
        thread.start()
        try:
            yield running
        finally:
            running.engine.stop()
            thread.join()


def server_spec(
    model: Path, *options: str, command: Sequence[str] = FAKE_VLLM, adapters: int = 8, batch: int = 16
) -> ServerSpec:
    return ServerSpec(
        model=str(model),
        host="127.0.0.1",
        secret="secret",
        idle_seconds=60,
        adapters=adapters,
        batch=batch,
        vllm=VllmSpec(command=[*command], options=[*options]),
    )
