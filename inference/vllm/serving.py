"""Starts vLLM for a base model."""

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoConfig, GenerationConfig

from contract.inference import ServerSpec, VllmSpec
from contract.run_dir import RunDir
from inference.prompts import Prompts
from inference.vllm.adapters import VllmAdapters
from inference.vllm.engine import VllmEngine
from inference.vllm.process import SOCKET, started, wait_until_ready
from inference.vllm.wire import Vllm
from trainer.model.base_model import loading_errors
from trainer.model.pretrained import download

log = logging.getLogger(__name__)


@contextmanager
def vllm_engine(
    spec: ServerSpec, vllm: VllmSpec, folder: Path, stop: threading.Event
) -> Iterator[tuple[Prompts, VllmEngine] | None]:
    """None if it was stopped before it could answer. Raises InputError if it does not start."""
    with loading_errors(spec.model):
        model = download(spec.model)
        ends = _generation_config(model)
    key = secrets.token_urlsafe(32)
    # A relative path: that of a socket has at most 108 bytes.
    socket = os.path.relpath(folder / SOCKET)
    with started(spec, vllm, model, folder, key) as process:
        context = wait_until_ready(process, socket, key, RunDir(folder).log, stop)
        if context is None:
            yield None
            return
        wire = Vllm(socket, key)
        adapters = VllmAdapters(wire, model, folder / "adapters", spec.adapters)
        log.info("vLLM answers of up to %s tokens with their prompts", context)
        yield Prompts(str(model), ends, context), VllmEngine(process, wire, adapters, spec.batch, context)


def _generation_config(model: Path) -> Any:
    if (model / "generation_config.json").is_file():
        return GenerationConfig.from_pretrained(model)
    return GenerationConfig.from_model_config(AutoConfig.from_pretrained(model, trust_remote_code=False))
