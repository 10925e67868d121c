"""A small random model of each family that people tune, with the names that PEFT gives its modules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GemmaConfig,
    GlmConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from contract.recipe import Optimizer, Recipe
from dataset.document import Document
from trainer.engines.optim import make_optimizer
from trainer.model.base_model import can_pack, load_model
from trainer.model.loss import SupervisedLoss
from trainer.model.packing import pack

VOCABULARY = 96
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
MULTI_HEAD = SIZES | {"num_key_value_heads": 4}
OLD_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
FAMILIES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "llama": (lambda: LlamaConfig(**SIZES), ["q_proj", "v_proj"]),
    "qwen2": (lambda: Qwen2Config(**SIZES), ["q_proj", "v_proj"]),
    "qwen3": (lambda: Qwen3Config(**SIZES, head_dim=8), ["q_proj", "v_proj"]),
    "gpt2": (lambda: GPT2Config(**OLD_SIZES, n_positions=64), ["c_attn"]),
    "gpt_neox": (lambda: GPTNeoXConfig(**MULTI_HEAD), ["query_key_value"]),
    "bloom": (lambda: BloomConfig(**OLD_SIZES), ["query_key_value"]),
    "glm": (lambda: GlmConfig(**SIZES, head_dim=8), ["q_proj", "v_proj"]),
    "gemma": (lambda: GemmaConfig(**SIZES, head_dim=8), ["q_proj", "v_proj"]),
    "gemma2": (lambda: Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0), ["q_proj", "v_proj"]),
    "phi": (lambda: PhiConfig(**MULTI_HEAD), ["q_proj", "v_proj", "fc1", "fc2"]),
}
"""The config, and PEFT's own choice of modules (peft.utils.constants)."""
PACKED = {"llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "glm", "gemma", "phi"}


@pytest.fixture(scope="session")
def make_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random model: its biases, norms and head too, so that nothing is right by being zero or one."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(FAMILIES[family][0]())
            for parameter in model.parameters():
                parameter.data += 0.05 * torch.randn_like(parameter)
            made[family] = tmp_path_factory.mktemp(family)
            model.save_pretrained(made[family])
        return made[family]

    return make


def load(folder: Path, targets: str | list[str], dtype: torch.dtype = torch.float32) -> SupervisedLoss:
    torch.manual_seed(1)
    recipe = {"model": str(folder), "dataset": "none", "adapter": {"r": 4, "target_modules": targets}}
    return load_model(Recipe.model_validate(recipe), dtype, torch.device("cpu"))


def documents() -> list[Document]:
    """Four, of different lengths."""
    torch.manual_seed(2)
    ids = [torch.randint(3, VOCABULARY, (length,)).tolist() for length in (9, 5, 17, 12)]
    return [Document(row, [place >= 3 for place in range(len(row))]) for row in ids]


def own_loss(model: Any, parts: list[Document]) -> torch.Tensor:
    """Transformers', of each document alone, as a sum."""
    losses = []
    for part in parts:
        ids = torch.tensor([part.input_ids])
        labels = torch.where(torch.tensor([part.supervised]), ids, -100)
        losses.append(model(input_ids=ids, labels=labels, use_cache=False).loss * part.targets)
    return torch.stack(losses).sum()


def targets_of(family: str) -> list[str | list[str]]:
    return ["all-linear", FAMILIES[family][1]]


CASES = [(family, targets) for family in FAMILIES for targets in targets_of(family)]


@pytest.mark.parametrize(("family", "targets"), CASES)
def test_a_family_has_the_loss_and_the_gradients_that_transformers_gives_its_documents_alone(
    family: str, targets: str | list[str], make_family: Callable[[str], Path]
) -> None:
    module, reference, parts = load(make_family(family), targets), load(make_family(family), targets), documents()
    assert module.packed == (family in PACKED)
    reference.model.get_base_model().set_attn_implementation("eager")
    for ours, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        if ours.requires_grad:
            theirs.data = ours.data.normal_(std=0.05).clone()

    loss, expected = module(pack(parts)), own_loss(reference.model, parts)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for ours, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        if ours.requires_grad:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "targets"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_a_family_learns(
    family: str, targets: str | list[str], dtype: torch.dtype, make_family: Callable[[str], Path]
) -> None:
    module, batch = load(make_family(family), targets, dtype), pack(documents())
    optimizer = make_optimizer(module.named_parameters(), Optimizer(learning_rate=1e-2))
    losses = []
    for _ in range(4):
        loss = module(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_longest_document_are_not_packed(rope_type: str) -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": 8}
    rope = {"rope_type": rope_type, "rope_theta": 10_000.0, "factor": 2.0}
    if rope_type == "longrope":
        rope |= factors
    assert can_pack(LlamaConfig(**SIZES))
    assert not can_pack(LlamaConfig(**SIZES, rope_parameters=rope))
