"""torch.compile, a layer at a time: the layers are alike, and what is compiled for one is for all.

Rows of any number of tokens share it. Attention is left as it is: what it does depends on the documents of a row.
Evaluations and answers run what is not compiled, as they would want code of their own.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from contract.failure import FailureCode, InputError


def compile_layers(base: Any, packed: bool, cache: Path) -> None:
    """All but the first: nobody asks for the gradient of its input, and it would be compiled for itself. What the
    compiler has made is kept in `cache`.

    Raises InputError for an architecture that is not `packed`, and where there is no compiler.
    """
    param = "torch_compile"
    if not packed:
        message = f"{param}: the attention of this {base.config.model_type} is not compiled; leave it out"
        raise InputError(FailureCode.MODEL_UNSUPPORTED, message, param)
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        message = f"{param}: the worker's machine has no C++ compiler; install g++ there, or leave it out"
        raise InputError(FailureCode.RECIPE_INVALID, message, param)
    _keep_in(cache)
    layers = next(each for each in base.base_model.children() if isinstance(each, torch.nn.ModuleList))
    for layer in layers[1:]:
        layer.compile(dynamic=True)


def _keep_in(cache: Path) -> None:
    """Sources and what a compiler has made of them. The graphs that torch would keep, to be found again before anything
    is compiled, are pickles: none is written or read."""
    import torch._dynamo.config
    import torch._functorch.config
    import torch._inductor.config

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    torch._inductor.config.fx_graph_cache = False
    torch._functorch.config.enable_autograd_cache = False
    torch._dynamo.config.automatic_dynamic_local_pgo = False
    # In this process: those that would help it would have to be ended with it.
    torch._inductor.config.compile_threads = 1
