"""Loads the base model, and answers until the server is idle or stopped."""

import logging
import math
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from transformers.utils.logging import disable_progress_bar

from contract.inference import ServerSpec
from contract.recipe import Recipe
from inference.adapters import Adapters
from inference.batch import PaddedBatch, Singles
from inference.engine import AnswerEngine
from inference.http_server import AnswerServer, port_of
from inference.loop import Loop
from inference.padding_check import takes_padded_rows
from inference.prompts import Prompts
from inference.token_room import token_room
from inference.vllm.serving import vllm_engine
from trainer.device import describe, this_device
from trainer.model.base_model import load_base
from trainer.precision import DTYPES, resolve_precision

log = logging.getLogger(__name__)


def serve(spec: ServerSpec, folder: Path, report_port: Callable[[int], None], stop: threading.Event) -> None:
    """`folder` is the server's. Raises InputError for a model that cannot be loaded."""
    if spec.vllm is None:
        _answer(spec, *_load(spec), report_port, stop)
        return
    with vllm_engine(spec, spec.vllm, folder, stop) as started:
        if started is not None:
            _answer(spec, *started, report_port, stop)


def _load(spec: ServerSpec) -> tuple[Prompts, AnswerEngine]:
    began = time.monotonic()
    disable_progress_bar()
    device = this_device()
    recipe = Recipe.model_validate({"model": spec.model, "dataset": "-"})
    precision = resolve_precision(recipe, device)
    base = load_base(recipe, DTYPES[precision], device).eval()
    kind = PaddedBatch if takes_padded_rows(base.config) else Singles
    room = token_room(base) if kind is PaddedBatch else math.inf  # the others keep nothing
    loop = Loop(Adapters(base, spec.adapters), spec.batch, kind, room)
    seconds = time.monotonic() - began
    log.info("%s is loaded in %s on %s after %.1f s", spec.model, precision, describe(device), seconds)
    log.info("answers of %s tokens fit at once, with their prompts", room)
    return Prompts(spec.model, base.generation_config, positions_of(base.config)), loop


def positions_of(config: Any) -> int | None:
    """What a model's context holds; None where that is not known."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _answer(
    spec: ServerSpec, prompts: Prompts, engine: AnswerEngine, report_port: Callable[[int], None], stop: threading.Event
) -> None:
    server = AnswerServer(spec.host, spec.secret, prompts, engine)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    threading.Thread(target=partial(_stop, stop, engine), name="stop", daemon=True).start()
    report_port(port_of(server))
    engine.run(spec.idle_seconds)
    server.shutdown()
    log.info("it ends, %s", "on request" if stop.is_set() else "being idle")


def _stop(stop: threading.Event, engine: AnswerEngine) -> None:
    stop.wait()
    engine.stop()
