"""A base in 4 or 8 bits, on a CPU as on a GPU."""

import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from contract.failure import FailureCode, InputError
from tests.trainer.adapters import IDS, load, loss, save, some_rows, train
from trainer.model.quantize import keep_trainable, quantization

BITS = pytest.mark.parametrize("bits", [4, 8])


@BITS
@pytest.mark.parametrize(
    "kind", ["llama", *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in ("qwen2", "gpt2 with dropout"))]
)
def test_quantised_base_is_near_and_small(
    bits: int, kind: str, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    whole, quantised = (load(recipe, make_model(kind), {}, base_bits=given) for given in (None, bits))
    losses, exact = train(quantised, recipe), train(whole, recipe, steps=1)[0]
    assert losses[0] == pytest.approx(exact, rel=0.01)
    assert losses[0] != exact
    assert losses[-1] < losses[0]
    memory = [module.model.get_base_model().get_memory_footprint() for module in (whole, quantised)]
    assert memory[1] < 0.7 * memory[0]


@BITS
def test_quantised_base_has_an_fp32_adapter(
    bits: int, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    for kind in ("llama", "qwen2"):  # The head is the embeddings; the head is by itself.
        module = load(recipe, make_model(kind), {}, torch.bfloat16, base_bits=bits)
        assert {p.dtype for p in module.parameters() if p.requires_grad} == {torch.float32}
        head = module.model.get_base_model().get_output_embeddings()
        assert (type(head), head.weight.dtype) == (torch.nn.Linear, torch.bfloat16)


@BITS
@pytest.mark.parametrize(
    "adapter",
    [{}, pytest.param({"modules_to_save": ["lm_head", "norm"], "rslora": True}, marks=pytest.mark.exhaustive)],
)
def test_quantised_adapter_loads_in_plain_peft(
    bits: int, adapter: dict[str, Any], make_model: Callable[[str], Path], recipe: dict[str, Any], tmp_path: Path
) -> None:
    module = load(recipe, make_model("qwen2"), adapter, base_bits=bits)
    train(module, recipe)
    saved = load_file(save(module, tmp_path) / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert len(saved) == sum(p.requires_grad for p in module.parameters())
    base = AutoModelForCausalLM.from_pretrained(
        make_model("qwen2"), dtype=torch.float32, quantization_config=quantization(bits, torch.float32)
    )
    keep_trainable(base)
    reloaded = PeftModel.from_pretrained(base, tmp_path).eval()
    module.model.get_base_model().set_attn_implementation("sdpa")
    torch.testing.assert_close(
        reloaded(input_ids=IDS).logits, module.model.eval()(input_ids=IDS).logits, rtol=1e-4, atol=1e-4
    )


@BITS
def test_it_has_the_same_gradients_after_an_evaluation(
    bits: int, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    norms = []
    for evaluated in (False, True):
        module = load(recipe, make_model("qwen2"), {}, base_bits=bits)
        batch = some_rows(recipe)
        if evaluated:
            with torch.no_grad():
                loss(module.eval(), batch)
        loss(module.train(), batch).backward()
        norms.append([p.grad.norm().item() for p in module.parameters() if p.grad is not None])
    assert norms[1] == pytest.approx(norms[0], rel=1e-6)


@pytest.mark.parametrize(("kind", "width"), [("llama", 128), ("llama with rows of 96", 96)])
def test_misread_rows_are_refused(
    kind: str, width: int, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    weights = torch.randn(64, width)
    error = (dequantize_4bit(*quantize_4bit(weights, quant_type="nf4")) - weights).abs().mean()
    refused = pytest.raises(InputError, match="down_proj have 96 weights")
    with nullcontext() if error < 0.1 else refused:  # CPUs with AVX-512 and bitsandbytes 0.50 have 0.18 at 96
        load(recipe, make_model(kind), {}, base_bits=4)


def test_dora_on_8_bits_needs_a_gpu(make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="use base_bits 4") as caught:
        load(recipe, make_model("qwen2"), {"dora": True}, base_bits=8)
    assert caught.value.failure.code == FailureCode.PRECISION_UNAVAILABLE
    assert caught.value.failure.param == "adapter.dora"


def test_rounding_is_not_logged_per_layer(
    make_model: Callable[[str], Path], recipe: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    module = load(recipe, make_model("qwen2"), {}, base_bits=8).eval()
    with caplog.at_level(logging.WARNING), torch.no_grad():
        loss(module, some_rows(recipe))
    assert not caplog.records


@pytest.mark.exhaustive
def test_no_compiled_code_is_asked_of_the_hub() -> None:
    """By bitsandbytes, on a CPU with bf16: PEFT imports it."""
    program = (
        "from trainer.environment import prepare_process; prepare_process()\n"
        "import trainer.model.adapter, importlib.util as util; assert util.find_spec('kernels') is None"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "kernels" not in result.stdout + result.stderr


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:inner dimension .96. is not aligned for fast kernel")
@BITS
def test_quantised_base_learns_on_a_gpu_in_bf16(
    bits: int, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    gpu = torch.device("cuda", 0)
    losses = train(load(recipe, make_model("qwen2"), {"dora": True}, torch.bfloat16, gpu, base_bits=bits), recipe)
    assert losses[-1] < losses[0]
