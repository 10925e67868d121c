"""The frozen base in 4 or 8 bits, by bitsandbytes."""

import logging
from copy import copy
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Linear4bit
from transformers import BitsAndBytesConfig

from contract.failure import FailureCode, InputError

# Otherwise it logs, once per layer and step in 8 bits, that it rounds a layer's input to fp16 before it quantises it.
logging.getLogger("bitsandbytes.autograd._functions").addFilter(
    lambda record: not str(record.msg).startswith("MatMul8bitLt: inputs will be cast")
)


def quantization(bits: int, dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with double quantisation, computing in `dtype` (QLoRA: Dettmers et al. 2023, arXiv:2305.14314); or LLM.int8()
    (Dettmers et al. 2022, arXiv:2208.07339).

    Embeddings, output head, norms and biases stay in `dtype`. PEFT's prepare_model_for_kbit_training would convert them
    all to fp32, and with them everything between the layers.
    """
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def compute_in(config: Any, dtype: torch.dtype) -> None:
    """For a model that is stored in 4 bits, whose config.json has a format for its products too."""
    for each in (config, config.get_text_config()):
        stored = getattr(each, "quantization_config", None)
        if stored is not None:
            each.quantization_config = {**stored, "bnb_4bit_compute_dtype": str(dtype).removeprefix("torch.")}


def cast_unquantised(base: Any, dtype: torch.dtype) -> None:
    """For a model that is stored in 4 or 8 bits, whose other weights transformers 5.23 leaves in their own format."""
    for parameter in base.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def keep_trainable(base: Any) -> None:
    """On some CPUs the first evaluation would rewrite 4-bit weights into a less exact form without a backward pass
    (bitsandbytes 0.50)."""
    for module in base.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def check_rows(base: Any) -> None:
    """Raises InputError for a layer in 4 bits whose weights this device would misread: on CPUs with AVX-512,
    bitsandbytes 0.50 takes the wrong scale for most blocks that go on in the next row."""
    for name, module in base.named_modules():
        if isinstance(module, Linear4bit) and not _reads_rows(module):
            message = (
                f"base_bits: got 4; the rows of {name} have {module.in_features} weights, which bitsandbytes misreads"
                " on this CPU; use 8, leave it out, or train on a GPU"
            )
            raise InputError(FailureCode.MODEL_UNSUPPORTED, message, "base_bits")


def _reads_rows(module: Linear4bit) -> bool:
    """Whether weights of this width are the same as when each block is a row of its own."""
    stored = module.weight.quant_state
    if module.weight.device.type != "cpu" or module.in_features % stored.blocksize == 0:
        return True
    probe = torch.linspace(-1, 1, stored.blocksize * module.in_features).view(stored.blocksize, module.in_features)
    bits, state = quantize_4bit(probe, blocksize=stored.blocksize, quant_type=stored.quant_type)
    by_blocks = copy(state)
    by_blocks.shape = torch.Size((module.in_features, stored.blocksize))
    return torch.equal(dequantize_4bit(bits, state).flatten(), dequantize_4bit(bits, by_blocks).flatten())
