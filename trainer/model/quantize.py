"""The frozen base in 4 or 8 bits, by bitsandbytes."""

import logging
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from transformers import BitsAndBytesConfig


def quantization(bits: int, dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4, its scales quantised once more, computing in `dtype` (QLoRA: Dettmers et al. 2023, arXiv:2305.14314); or
    LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339).

    The embeddings and the output head are left as they are, as are norms and biases: in `dtype`. PEFT's
    prepare_model_for_kbit_training would make all these fp32, and with them everything between the layers.
    """
    if bits == 8:
        # It would say once per layer and step that it rounds a layer's input to fp16 before it quantises it.
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(
            lambda record: not str(record.msg).startswith("MatMul8bitLt: inputs will be cast")
        )
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_trainable(base: Any) -> None:
    """On some CPUs the first evaluation would rewrite 4-bit weights into a form that has no backward pass, less exact
    besides (bitsandbytes 0.50)."""
    for module in base.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
