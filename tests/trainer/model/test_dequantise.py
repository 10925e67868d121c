"""Bases whose files are quantised, read exactly, trained and given to plain PEFT."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GptOssConfig, GptOssForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from contract.events import MetricEvent
from contract.failure import FailureCode, InputError
from contract.model.folder import loaded_base
from contract.recipe import Recipe
from tests.trainer.adapters import load, logits, loss, ours, plain_base, save, some_rows, train
from tests.trainer.quantised_models import KINDS, write_mxfp4, write_quantised
from tests.trainer.trainer_process import Outcome
from trainer.model.dequantise.checkpoint import dequantised_weights
from trainer.model.quantize import keep_trainable, quantization
from trainer.tools.merge import merge

SOME = ("fp8 blocks", "gptq")
"""Which are trained in every run of the tests; all differ only in how they are read."""
TRAINED = [pytest.param(kind, marks=() if kind in SOME else pytest.mark.exhaustive) for kind in KINDS]


def assert_same_weights(folder: Path, plain: Path) -> None:
    expected, found = load_file(plain / "model.safetensors"), dequantised_weights(folder)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert found[name].get_shape() == list(weight.shape)
        torch.testing.assert_close(found[name][...], weight, rtol=0, atol=0)
    assert loaded_base(folder).shapes == loaded_base(plain).shapes


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_read_exactly(kind: str, model: Path, tmp_path: Path) -> None:
    assert_same_weights(*write_quantised(kind, model, tmp_path))


@pytest.mark.parametrize("kind", TRAINED)
def test_adapter_of_a_quantised_base_fits_the_dequantised(
    kind: str, model: Path, recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder, plain = write_quantised(kind, model, tmp_path)
    module = load(recipe, folder, {})
    losses = train(module, recipe)
    assert losses[-1] < losses[0]
    assert module.model.peft_config["default"].base_model_name_or_path == folder.name
    adapter = save(module, tmp_path / "adapter")
    reloaded = logits(PeftModel.from_pretrained(plain_base(plain), adapter))
    torch.testing.assert_close(reloaded, ours(module), rtol=1e-5, atol=1e-5)

    merge(Recipe.model_validate(recipe | {"model": str(folder), "adapter": {"start_from": str(adapter)}}), folder / "m")
    torch.testing.assert_close(logits(plain_base(folder / "m")), reloaded, rtol=1e-5, atol=1e-5)
    assert loss(load(recipe, folder, {"start_from": str(adapter)}), some_rows(recipe)).item() < losses[-1]


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.exhaustive)])
def test_dequantised_base_is_quantised_again_on_request(
    bits: int, model: Path, recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder, plain = write_quantised("fp8 blocks", model, tmp_path)
    adapter = {"init": "loftq"} if bits == 4 else {}
    found, expected = (train(load(recipe, each, adapter, base_bits=bits), recipe) for each in (folder, plain))
    assert found == expected


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("parallel", [{"engine": "deepspeed", "zero_stage": 3}, {"engine": "fsdp"}], ids=str)
def test_dequantised_base_is_sharded(
    parallel: dict[str, Any], model: Path, recipe: dict[str, Any], run_trainer: Callable[..., Outcome], tmp_path: Path
) -> None:
    losses = []
    for number, folder in enumerate(write_quantised("gptq", model, tmp_path)):
        changed = recipe | {"model": str(folder), "parallel": parallel, "resources": {"gpus": 2}}
        outcome = run_trainer(changed, 2, name=f"run-{number}")
        assert outcome.exit_code == 0, outcome.output
        losses.append([event.loss for event in outcome.events if isinstance(event, MetricEvent)])
    assert losses[0] == losses[1]


def test_mxfp4_experts_are_those_of_transformers(recipe: dict[str, Any], tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 16,
    }
    config = GptOssConfig(**sizes, vocab_size=400, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2)
    GptOssForCausalLM(config).save_pretrained(tmp_path / "source")
    folder, plain = write_mxfp4(tmp_path / "source", tmp_path)
    assert_same_weights(folder, plain)
    stored = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.experts.gate_up_proj"
    expected = convert_moe_packed_tensors(stored[f"{name}_blocks"], stored[f"{name}_scales"], dtype=torch.float32)
    torch.testing.assert_close(dequantised_weights(folder)[name][...], expected, rtol=0, atol=0)

    module = load(recipe, folder, {"target_modules": ["q_proj", "v_proj"]})
    losses = train(module, recipe)
    assert losses[-1] < losses[0]
    adapter = save(module, tmp_path / "adapter")
    reloaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(plain), adapter)
    torch.testing.assert_close(ours(module), logits(reloaded), rtol=1e-5, atol=1e-5)


@pytest.fixture
def stored(make_model: Callable[[str], Path], tmp_path: Path) -> Callable[[int], Path]:
    """The folder of a model that bitsandbytes has quantised."""

    def store(bits: int) -> Path:
        folder = shutil.copytree(make_model("qwen2"), tmp_path / f"in {bits} bits")
        (folder / "model.safetensors").unlink()
        AutoModelForCausalLM.from_pretrained(
            make_model("qwen2"), dtype=torch.bfloat16, quantization_config=quantization(bits, torch.bfloat16)
        ).save_pretrained(folder)
        return folder

    return store


BITS = pytest.mark.parametrize("bits", [4, 8])


@BITS
def test_bitsandbytes_base_is_trained_as_it_is_stored(
    bits: int, stored: Callable[[int], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = stored(bits)
    module = load(recipe, folder, {}, torch.bfloat16)
    base = module.model.get_base_model()
    assert getattr(base, f"is_loaded_in_{bits}bit")
    losses = train(module, recipe)
    assert losses[-1] < losses[0]
    reloaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    keep_trainable(reloaded)
    adapter = save(module, tmp_path / "adapter")
    torch.testing.assert_close(logits(PeftModel.from_pretrained(reloaded, adapter)), ours(module), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_run_trains_a_bitsandbytes_base(
    stored: Callable[[int], Path], recipe: dict[str, Any], run_trainer: Callable[..., Outcome]
) -> None:
    outcome = run_trainer(recipe | {"model": str(stored(4)), "precision": "auto"})
    assert outcome.exit_code == 0, outcome.output
    losses = [event.loss for event in outcome.events if isinstance(event, MetricEvent)]
    assert losses[-1] < losses[0]


@BITS
def test_stored_bits_compute_in_the_precision_of_the_recipe(
    bits: int, stored: Callable[[int], Path], recipe: dict[str, Any]
) -> None:
    module = load(recipe, stored(bits), {})
    assert {each.dtype for each in module.parameters() if each.is_floating_point()} == {torch.float32}
    assert ours(module).dtype == torch.float32


@pytest.mark.exhaustive
@BITS
def test_bitsandbytes_base_is_merged_in_16_bits(
    bits: int, stored: Callable[[int], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = stored(bits)
    module = load(recipe, folder, {})
    train(module, recipe)
    adapter = save(module, tmp_path / "adapter")
    merge(Recipe.model_validate(recipe | {"model": str(folder), "adapter": {"start_from": str(adapter)}}), folder / "m")
    merged = load_file(folder / "m" / "model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    assert loaded_base(folder / "m").shapes == loaded_base(folder).shapes
    torch.testing.assert_close(logits(plain_base(folder / "m")), ours(module), rtol=0.1, atol=0.05)


def test_nf4_is_read_as_bitsandbytes_reads_it(stored: Callable[[int], Path]) -> None:
    folder = stored(4)
    found = dequantised_weights(folder)
    for name, module in AutoModelForCausalLM.from_pretrained(folder).named_modules():
        if hasattr(module, "compute_dtype"):
            state = module.weight.quant_state
            expected = dequantize_4bit(module.weight.data, state)
            torch.testing.assert_close(found[f"{name}.weight"][...].to(expected.dtype), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "param", "said"),
    [
        ({"base_bits": 8}, "base_bits", "got 8; the model is stored in 4 bits by bitsandbytes: leave it out"),
        ({"adapter": {"init": "pissa"}}, "adapter.init", "the model is stored in 4 bits by bitsandbytes"),
        ({"base_bits": 4, "adapter": {"init": "loftq"}}, "adapter.init", "without its original weights"),
        ({"torch_compile": True}, "torch_compile", "the model is stored in 4 bits by bitsandbytes"),
        ({"parallel": {"engine": "fsdp"}}, "base_bits", "the model is stored in 4 bits by bitsandbytes"),
    ],
)
def test_what_excludes_a_base_in_4_bits_is_refused(
    changes: dict[str, Any], param: str, said: str, stored: Callable[[int], Path], recipe: dict[str, Any]
) -> None:
    with pytest.raises(InputError) as caught:
        load(recipe, stored(4), changes.pop("adapter", {}), **changes)
    assert (caught.value.failure.code, caught.value.failure.param) == (FailureCode.RECIPE_INVALID, param)
    assert said in caught.value.failure.message
