"""Liger's kernels in place of a layer's many small ones, on a GPU: norms, activation and positions read and write what
they work on once (Hsu et al. 2024, arXiv:2410.10989)."""

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
"""That have them, and what their activation may be: Liger does not look."""


def use_kernels(base: Any) -> None:
    """Where they are installed and there are some for the architecture. The model computes what it did."""
    config = base.config
    if not is_installed() or getattr(config, "hidden_act", None) not in ARCHITECTURES.get(config.model_type, ()):
        return
    # It warns of each kind of kernel that is for another device.
    logging.getLogger("liger_kernel").setLevel(logging.ERROR)
    # Here, because it imports Triton, for more than a second.
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    # The loss has a head of its own: trainer.model.loss.
    _apply_liger_kernel_to_instance(base, cross_entropy=False, fused_linear_cross_entropy=False)


def is_installed() -> bool:
    """With the C compiler that Triton asks for."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return compiler is not None and importlib.util.find_spec("liger_kernel") is not None
