"""Starts vLLM on a socket in the server's folder, and waits until it answers. No other user reaches that folder."""

import logging
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx
from pydantic import BaseModel

from contract.failure import FailureCode, InputError
from contract.inference import ServerSpec, VllmSpec
from inference.vllm.wire import BASE, bearer
from trainer.infrastructure import is_out_of_memory

log = logging.getLogger(__name__)

SOCKET = "vllm.sock"

_LONGEST_START = 20 * 60.0
"""Seconds. A first start may compile for minutes."""
_POLL_SECONDS = 0.25
_SECONDS_TO_STOP = 3.0
"""The guard of the server kills whatever is left after five."""
_SECONDS_BETWEEN_COMMENTS = 5
"""vLLM writes a comment into a response that has nothing else for so long."""
_TAIL = 256 << 10
"""Bytes of the log's end, in which the reason of a failed start is looked for."""

_ERROR = re.compile(r"(?:^|\s)((?:\w+\.)*\w*(?:Error|Exception): \S.*)$", re.MULTILINE)
_CONSEQUENCE = "Engine core initialization failed"
"""vLLM's last error; the one of its engine comes before it."""
_TOO_LITTLE_MEMORY = (
    "No available memory for the cache blocks",
    "less than desired GPU memory utilization",
    "larger than the available KV cache memory",
)


class _Card(BaseModel):
    id: str
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Card]


@contextmanager
def started(
    spec: ServerSpec, vllm: VllmSpec, model: Path, folder: Path, key: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Runs it in `folder`, and ends it."""
    # By the environment, which only this user reads, unlike the arguments.
    process = subprocess.Popen(
        [*vllm.command, "serve", str(model), *_options(spec, vllm)],
        cwd=folder,
        env=_environment(os.environ, vllm.command[0], key),
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _options(spec: ServerSpec, vllm: VllmSpec) -> list[str]:
    """Of an option that is given twice, vLLM takes the later one."""
    return [
        *("--max-lora-rank", "64", "--max-loras", str(min(8, spec.adapters))),
        *vllm.options,
        *("--uds", SOCKET, "--served-model-name", BASE, "--disable-uvicorn-access-log"),
        *("--sse-keep-alive-interval", str(_SECONDS_BETWEEN_COMMENTS)),
        *("--enable-lora", "--max-cpu-loras", str(spec.adapters), "--max-num-seqs", str(spec.batch)),
        # It would load a pickle if there were no safetensors, and sample as the model's folder says.
        *("--load-format", "safetensors", "--generation-config", "vllm", "--max-model-len", "auto"),
    ]


def _environment(given: Mapping[str, str], program: str, key: str) -> dict[str, str]:
    own = {
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": "127.0.0.1",  # its processes talk to each other there, not at the machine's address
        # It writes titles of its processes over their environment, by which the worker finds those that are left.
        "SPT_NOENV": "1",
    }
    # Tools that it compiles with lie beside it.
    beside = {"PATH": f"{Path(program).parent}:{given.get('PATH', '')}"} if "/" in program else {}
    return {**given, **beside, **own}


def wait_until_ready(
    process: "subprocess.Popen[bytes]", socket: str, key: str, log_file: Path, stop: threading.Event
) -> int | None:
    """The most tokens of an answer with its prompt; None if it was stopped. Raises InputError if it does not start."""
    deadline = time.monotonic() + _LONGEST_START
    transport = httpx.HTTPTransport(uds=socket)
    with httpx.Client(transport=transport, base_url="http://vllm", headers=bearer(key), timeout=10) as http:
        while not stop.wait(_POLL_SECONDS):
            if (code := process.poll()) is not None:
                raise _start_failure(f"it ended with {code}", log_file)
            if time.monotonic() > deadline:
                raise _start_failure(f"it does not answer after {_LONGEST_START:.0f} s", log_file)
            if not os.path.exists(socket):  # httpcore leaves open what it could not connect
                continue
            try:
                response = http.get("/v1/models")
            except httpx.TransportError:
                continue
            if response.status_code == HTTPStatus.OK:
                models = _Models.model_validate_json(response.content).data
                return next(card.max_model_len for card in models if card.id == BASE)
    return None


def _start_failure(what: str, log_file: Path) -> InputError:
    text = _tail(log_file)
    errors = [found for found in _ERROR.findall(text) if _CONSEQUENCE not in found]
    reason = errors[-1].strip()[:500] if errors else "its log says more"
    message = f"vLLM did not start, {what}: {reason}"
    if is_out_of_memory(RuntimeError(text)) or any(words in text for words in _TOO_LITTLE_MEMORY):
        return InputError(FailureCode.OUT_OF_MEMORY, f"{message}; the device's memory is too small for it")
    if errors and reason.startswith(("ValueError", "NotImplementedError")):
        return InputError(FailureCode.MODEL_UNSUPPORTED, f"model: {message}; unset FINETUNED_INFERENCE_VLLM", "model")
    return InputError(FailureCode.WORKER_FAILED, message)


def _tail(log_file: Path) -> str:
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
