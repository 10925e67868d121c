"""An adapter as GGUF, in the real llama.cpp.

Base and adapter are fp32 there, and so are keys and values, so log probabilities differ by the order of sums alone:
1e-6 was measured, and 1e-5 is allowed. Gemma's GELU comes from a table in 16 bits: 5e-4 was measured, and 2e-3 is
allowed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.export import ExportSpec
from contract.failure import InputError
from contract.model.portable_adapter import GGUF_ARCHITECTURES
from contract.recipe import Recipe
from tests.trainer.adapters import load, save, train
from tests.trainer.gguf_models import LlamaCpp, write_base
from trainer.tools.gguf_adapter import save_gguf

SPEC = ExportSpec(format="gguf", base="org/base")
PLAIN = ("llama", "phi3")
KINDS = [
    *PLAIN,
    *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in GGUF_ARCHITECTURES if kind not in PLAIN),
]
PROMPTS = [[1, 40, 41, 42, 43, 44, 45, 2, 50, 51], [5, 60, 7, 80, 9], [300, 17, 201]]
TOKENS = 6


@torch.inference_mode()
def greedy(model: Any, prompt: list[int]) -> tuple[list[int], torch.Tensor]:
    """The answer, and log probabilities [tokens, vocabulary]."""
    ids, rows = list(prompt), []
    for _ in range(TOKENS):
        rows.append(model.eval()(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1))
        ids.append(int(rows[-1].argmax()))
    return ids[len(prompt) :], torch.stack(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_answers_as_the_trained_model(
    recipe: dict[str, Any], make_model: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    model = make_model(kind)
    module = load(recipe, model, {"rslora": True, "alpha": 5, "rank_pattern": {"o_proj": 3}})
    train(module, recipe)
    adapter = {"start_from": str(save(module, tmp_path / "adapter"))}
    save_gguf(Recipe.model_validate(recipe | {"model": str(model), "adapter": adapter}), tmp_path / "gguf", SPEC)
    write_base(model, tmp_path / "base.gguf")
    module.take_one_by_one("a test calls the model itself")
    size = module.model.config.vocab_size
    tuned = LlamaCpp(tmp_path / "base.gguf", tmp_path / "gguf" / "adapter.gguf", size)
    allowed = 2e-3 if kind.startswith("gemma") else 1e-5
    for prompt in PROMPTS:
        answer, wanted = greedy(module.model, prompt)
        for step, row in enumerate(wanted):
            found = tuned.next_log_probabilities(prompt + answer[:step])
            torch.testing.assert_close(found, row, atol=allowed, rtol=0)
            assert found.argmax() == row.argmax()
    with module.model.disable_adapter():
        _, before = greedy(module.model, PROMPTS[0])
    assert (before[0] - greedy(module.model, PROMPTS[0])[1][0]).abs().max() > 1e-2


def test_modelfile_names_adapter_and_end_tokens(
    recipe: dict[str, Any], make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    module = load(recipe, make_model("llama"), {})
    train(module, recipe, steps=1)
    adapter = {"start_from": str(save(module, tmp_path / "adapter"))}
    exported = Recipe.model_validate(recipe | {"model": str(make_model("llama")), "adapter": adapter})
    save_gguf(exported, tmp_path / "gguf", SPEC)
    lines = (tmp_path / "gguf" / "Modelfile").read_text().splitlines()
    assert lines[1:] == ["FROM ./base.gguf", "ADAPTER ./adapter.gguf", 'PARAMETER stop "<|im_end|>"']


def test_base_that_is_not_converted_is_refused_by_name(
    recipe: dict[str, Any], make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    model = make_model("bloom")
    module = load(recipe, model, {})
    train(module, recipe, steps=1)
    adapter = {"start_from": str(save(module, tmp_path / "adapter"))}
    exported = Recipe.model_validate(recipe | {"model": str(model), "adapter": adapter})
    with pytest.raises(InputError, match='model_type "bloom" is not one of gemma') as refused:
        save_gguf(exported, tmp_path / "gguf", SPEC)
    assert refused.value.failure.param == "format"
    assert not (tmp_path / "gguf").exists()
