"""A tiny model with adapters that answer differently."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest
import sqlalchemy as sa
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from store.session import Sessions, make_sessions
from tests.inference.running_loop import RunningLoop
from tests.inference.served_models import sdk
from tests.support.service import Service
from tests.trainer.conftest import dataset, make_model, model, recipe, run_trainer, serve_tiny, tokenizer

__all__ = ["dataset", "make_model", "model", "recipe", "run_trainer", "serve_tiny", "tokenizer"]

ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"r": 4, "target_modules": "all-linear"},
    "of two modules": {"r": 2, "target_modules": ["q_proj", "down_proj"], "use_rslora": True},
    "with ranks by module": {"r": 4, "target_modules": ["v_proj", "up_proj"], "rank_pattern": {"v_proj": 8}},
    "dora": {"r": 4, "target_modules": ["q_proj", "v_proj"], "use_dora": True},
    "with a head": {"r": 4, "target_modules": ["o_proj"], "modules_to_save": ["lm_head"]},
}


@pytest.fixture(scope="session")
def make_adapter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a random adapter, so large that it changes the answers."""

    def make(base: Path, seed: int, folder: Path | None = None, **config: Any) -> Path:
        folder = folder or tmp_path_factory.mktemp("adapter")
        torch.manual_seed(seed)
        on = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        adapted = get_peft_model(on, LoraConfig(task_type="CAUSAL_LM", lora_alpha=16, **config))
        for name, parameter in adapted.named_parameters():
            if ("lora_" in name and "magnitude" not in name) or "modules_to_save" in name:
                parameter.data += 0.3 * torch.randn_like(parameter)
        adapted.save_pretrained(folder, save_embedding_layers=False)
        return folder

    return make


@pytest.fixture(scope="session")
def untied(make_model: Callable[[str], Path]) -> Path:
    """A model whose head is no embedding, which an adapter may replace."""
    return make_model("llama of 4 layers")


@pytest.fixture(scope="session")
def adapters(untied: Path, make_adapter: Callable[..., Path]) -> dict[str, Path]:
    return {name: make_adapter(untied, seed, **config) for seed, (name, config) in enumerate(ADAPTERS.items())}


@pytest.fixture
def loop(untied: Path) -> Iterator[RunningLoop]:
    with RunningLoop(untied) as running:
        yield running


@pytest.fixture(scope="module")
def database(engine: sa.Engine, live: Service) -> Sessions:
    """Of the service that a module runs."""
    return make_sessions(engine)


@pytest.fixture
def client(live: Service) -> Iterator[openai.OpenAI]:
    with sdk(live, "anna") as client:
        yield client
