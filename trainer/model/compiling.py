"""torch.compile, one layer at a time: the layers are alike, so they share the compiled code.

Rows of any number of tokens share it too. Attention is not compiled, since it depends on the documents of a row.
Evaluations and sample answers run uncompiled, since they would need their own code.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from contract.failure import FailureCode, InputError
from trainer.model.backbone import backbone_of


def compile_layers(base: Any, packed: bool, cache: Path) -> None:
    """Compiles all layers but the first, which would need its own code: nobody needs the gradient of its input. The
    compiled code is kept in `cache`.

    Raises InputError for an architecture that is not `packed`, and if there is no compiler.
    """
    param = "torch_compile"
    if not packed:
        message = f"{param}: the attention of this {base.config.model_type} is not compiled; leave it out"
        raise InputError(FailureCode.MODEL_UNSUPPORTED, message, param)
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        message = f"{param}: the worker's machine has no C++ compiler; install g++ there, or leave it out"
        raise InputError(FailureCode.RECIPE_INVALID, message, param)
    _keep_in(cache)
    layers = next(each for each in backbone_of(base).children() if isinstance(each, torch.nn.ModuleList))
    for layer in layers[1:]:
        layer.compile(dynamic=True)


def _keep_in(cache: Path) -> None:
    """Keeps sources and compiled code in the cache. The graphs that torch would also keep there are pickles, so none
    are written or read."""
    import torch._dynamo.config
    import torch._functorch.config
    import torch._inductor.config

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    torch._inductor.config.fx_graph_cache = False
    torch._functorch.config.enable_autograd_cache = False
    torch._dynamo.config.automatic_dynamic_local_pgo = False
    # In this process: helper processes would have to be ended with it.
    torch._inductor.config.compile_threads = 1
