"""Liger's fused GPU kernels for norms, activations and positions, in place of many small ones: each reads and writes
its data once (Hsu et al. 2024, arXiv:2410.10989)."""

import importlib.util
import logging
import os
import shutil
from typing import Any

ARCHITECTURES = {
    "gemma": ("gelu_pytorch_tanh",),
    "llama": ("silu",),
    "mistral": ("silu",),
    "qwen2": ("silu",),
    "qwen3": ("silu",),
}
"""Architectures with kernels, and the activations that the kernels support. Liger does not check."""


def use_kernels(base: Any) -> None:
    """Uses the kernels if they are installed and support the architecture. The model's output does not change."""
    config = base.config
    if not is_installed() or getattr(config, "hidden_act", None) not in ARCHITECTURES.get(config.model_type, ()):
        return
    # It warns of each kind of kernel that is for another device.
    logging.getLogger("liger_kernel").setLevel(logging.ERROR)
    # Imported here: it imports Triton, which takes more than a second.
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    # trainer.model.trained_model has its own head.
    _apply_liger_kernel_to_instance(base, cross_entropy=False, fused_linear_cross_entropy=False)


def is_installed() -> bool:
    """Whether Liger and the C compiler that Triton needs are installed."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return compiler is not None and importlib.util.find_spec("liger_kernel") is not None
