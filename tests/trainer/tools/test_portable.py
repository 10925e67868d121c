"""The portable form of an adapter: the same model as the adapter itself, for plain PEFT."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from contract.failure import InputError
from contract.recipe import Recipe
from tests.trainer.adapters import load, logits, ours, plain_base, save, train
from tests.trainer.exported_adapters import ADAPTERS, SPEC, adapt
from trainer.tools.merge import merge
from trainer.tools.portable import save_portable


def adapted(model: Path, folder: Path) -> Any:
    return PeftModel.from_pretrained(plain_base(model), folder)


@torch.inference_mode()
def greedy(model: Any, tokens: int = 6) -> torch.Tensor:
    """The answers to 20 prompts."""
    rows = torch.arange(20)[:, None] * 17 % 300 + torch.arange(3, 11)
    for _ in range(tokens):
        rows = torch.cat([rows, model.eval()(input_ids=rows).logits[:, -1:].argmax(-1)], dim=1)
    return rows


@pytest.mark.parametrize("options", ADAPTERS.values(), ids=ADAPTERS)
def test_all_forms_answer_as_the_trained_model(
    recipe: dict[str, Any], model: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    module, exported = adapt(recipe, model, options, tmp_path / "adapter")
    save_portable(exported, tmp_path / "portable", SPEC)
    merge(exported, tmp_path / "merged", shard_size="50KB")
    assert len(list((tmp_path / "merged").glob("model-*.safetensors"))) > 1
    wanted, answers = ours(module), greedy(module.model)
    assert (wanted - logits(plain_base(model))).abs().max() > 1e-2
    forms = {
        "plain PEFT": adapted(model, tmp_path / "adapter"),
        "portable": adapted(model, tmp_path / "portable"),
        "merged": AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32),
    }
    for name, form in forms.items():
        torch.testing.assert_close(logits(form), wanted, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text)
        assert torch.equal(greedy(form), answers), name


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["gpt2 of 64 positions", "bloom", "phi3"])
def test_other_architectures_answer_as_the_trained_model(
    recipe: dict[str, Any], make_model: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    model = make_model(kind)
    module, exported = adapt(recipe, model, {"rslora": True, "alpha": 5}, tmp_path / "adapter")
    save_portable(exported, tmp_path / "portable", SPEC)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    portable = PeftModel.from_pretrained(base, tmp_path / "portable")
    torch.testing.assert_close(logits(portable), ours(module), atol=1e-5, rtol=1e-5)


def test_portable_adapter_brings_template_and_end_tokens(recipe: dict[str, Any], model: Path, tmp_path: Path) -> None:
    _, exported = adapt(recipe, model, {}, tmp_path / "adapter")
    dataset = {"path": recipe["dataset"], "chat_template": "alpaca"}
    named = Recipe.model_validate(exported.model_dump() | {"dataset": dataset})
    save_portable(named, tmp_path / "portable", SPEC)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "portable")
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "Hi."}], tokenize=False)
    assert "### Instruction:\nHi." in asked
    config = json.loads((tmp_path / "portable" / "generation_config.json").read_text())
    ends = config["eos_token_id"] if isinstance(config["eos_token_id"], list) else [config["eos_token_id"]]
    assert tokenizer.eos_token_id in ends
    own = PreTrainedTokenizerFast.from_pretrained(model).chat_template
    save_portable(exported, tmp_path / "plain", SPEC)
    assert PreTrainedTokenizerFast.from_pretrained(tmp_path / "plain").chat_template == own


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dora": True}, "DoRA"),
        ({"bias": "lora_only"}, "biases"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens.lora_embedding_A"),
    ],
    ids=lambda each: each if isinstance(each, str) else next(iter(each)),
)
def test_adapter_without_portable_form_is_refused_by_name(
    recipe: dict[str, Any], make_model: Callable[[str], Path], tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    # With a head of its own: PEFT warns about LoRA on tied embeddings.
    _, exported = adapt(recipe, make_model("llama of 4 layers"), options, tmp_path / "adapter")
    with pytest.raises(InputError, match=reason) as refused:
        save_portable(exported, tmp_path / "portable", SPEC)
    assert refused.value.failure.param == "format"
    assert 'format "merged"' in str(refused.value)
    assert not (tmp_path / "portable").exists()


@pytest.mark.exhaustive
def test_loftq_is_merged_into_what_it_corrects(recipe: dict[str, Any], model: Path, tmp_path: Path) -> None:
    module = load(recipe | {"base_bits": 4}, model, {"init": "loftq"})
    train(module, recipe)
    start_from = str(save(module, tmp_path / "adapter"))
    exported = Recipe.model_validate(recipe | {"model": str(model), "adapter": {"start_from": start_from}})
    with pytest.raises(InputError, match="loftq"):
        save_portable(exported, tmp_path / "portable", SPEC.model_copy(update={"init": "loftq"}))
    merge(exported, tmp_path / "merged", init="loftq")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert not hasattr(merged.config, "quantization_config")
    torch.testing.assert_close(logits(merged), ours(module), atol=1e-4, rtol=1e-4)
