"""Puts a LoRA adapter on a base model: a new one, or an earlier job's."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file
from transformers.pytorch_utils import Conv1D

from contract.failure import FailureCode, InputError
from contract.model.earlier_adapter import WEIGHTS, check_earlier_adapter
from contract.model.target_modules import TAKEN_NAMES, check_adapter, left_out_words
from contract.quote import cut
from contract.recipe import CHANGES_BASE, Adapter
from trainer.model.fused_lora import fuse
from trainer.model.plain_lora import lora_tensors

_EXPECTED_WARNINGS = (
    "`is_gradient_checkpointing`",  # PEFT 0.21 reads an attribute by the name it had before transformers 5.
    "fan_in_fan_out is set to",  # GPT-2 has one linear module that is not transposed, its head: PEFT sets it right.
    "Using Rank-Stabilized LoRA with rank_pattern",  # What PEFT cannot convert, trainer.model.plain_lora does.
)


def add_adapter(base: Any, adapter: Adapter) -> Any:
    """LoRA (Hu et al. 2021, arXiv:2106.09685) in fp32 on the modules that the recipe names; the model computes what it
    did.

    Raises InputError for names that the model has not, and for what cannot be done to its modules.
    """
    targets = check_adapter(adapter, _weight_shapes(base), base.config.model_type)
    transposed = any(isinstance(module, Conv1D) for module in base.modules())
    if transposed and adapter.init == "olora":
        message = (
            f"adapter.init: got {adapter.init!r}; a {base.config.model_type} has its weights transposed, use 'pissa'"
        )
        raise InputError(FailureCode.RECIPE_INVALID, message, "adapter.init")
    _check_bias("adapter.bias", adapter.bias, base)
    _check_dora("adapter.dora", adapter.dora, base)
    # Embeddings that are trained whole stay the head's, so that the adapter can be merged.
    embedding = next(name for name, module in base.named_modules() if module is base.get_input_embeddings())
    tied = getattr(base.config, "tie_word_embeddings", False)
    ties = tied and embedding.rsplit(".", 1)[-1] in adapter.modules_to_save
    try:
        with _without_expected_warnings():
            config = _lora_config(adapter, transposed, ties)
            config.target_modules = _as_written(config, base, targets.adapted) or targets.adapted
            model = _adapted(base, config)
    except ValueError as error:
        raise InputError(
            FailureCode.TARGET_MODULES_UNMATCHED, f"adapter.target_modules: {error}", "adapter.target_modules"
        ) from error
    if adapter.init in CHANGES_BASE:
        model.initial_lora = lora_tensors(model)
    model.left_out = left_out_words(targets)
    return model


def continue_adapter(base: Any, folder: Path, dropout: float) -> Any:
    """The adapter that PEFT has saved in `folder`, in fp32, to be trained further; its shape is its own.

    Raises InputError for a folder with no LoRA of this model in it. Reads nothing but safetensors and JSON.
    """
    check_saved(folder, base)
    config = LoraConfig.from_pretrained(str(folder))
    _check_bias("adapter.start_from", config.bias, base)
    _check_dora("adapter.start_from", config.use_dora, base)
    config.task_type = "CAUSAL_LM"
    config.inference_mode = False
    config.lora_dropout = dropout
    config.base_model_name_or_path = None  # PEFT warns where a model is elsewhere now.
    try:
        with _without_expected_warnings():
            model = _adapted(base, config)
    except ValueError as error:
        raise _does_not_fit(folder, str(error)) from error
    tensors = load_file(folder / WEIGHTS)
    wanted = _shapes(get_peft_model_state_dict(model, save_embedding_layers=False))
    given = _shapes(tensors)
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            raise _does_not_fit(
                folder,
                f"for {name} its {WEIGHTS} has {_words(given.get(name))}, its adapter_config.json on this model wants "
                f"{_words(wanted.get(name))}",
            )
    set_peft_model_state_dict(model, tensors)
    return model


def check_saved(folder: Path, base: Any) -> None:
    """Raises InputError for a folder with no LoRA of this model in it. PEFT itself would load a pickle where there are
    no safetensors, and ask the hub where there is neither."""
    check_earlier_adapter(folder, _weight_shapes(base), Path(base.name_or_path).name)


def _weight_shapes(base: Any) -> dict[str, list[int]]:
    """Shape of every weight, by its name, also where 4 bits are packed and where DeepSpeed has divided it."""
    shapes = {}
    for name, parameter in base.named_parameters():
        whole = getattr(parameter, "quant_state", parameter)
        shapes[name] = list(getattr(parameter, "ds_shape", whole.shape))
    return shapes


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def _words(shape: list[int] | None) -> str:
    return "nothing" if shape is None else " x ".join(map(str, shape))


def _does_not_fit(folder: Path, message: str) -> InputError:
    param = "adapter.start_from"
    return InputError(FailureCode.RECIPE_INVALID, f"{param}: {cut(folder.name)}: {message}", param)


def _check_bias(param: str, bias: str, base: Any) -> None:
    quantized = getattr(base, "is_quantized", False)
    if bias != "none" and (base.dtype != torch.float32 or quantized):
        held = "4 or 8 bits" if quantized else base.dtype
        message = f"{param}: bias {bias!r} trains biases of the base, which is in {held}; use precision fp32"
        raise InputError(FailureCode.PRECISION_UNAVAILABLE, message, param)
    if bias != "none" and any(hasattr(parameter, "ds_shape") for parameter in base.parameters()):
        message = f"{param}: bias {bias!r} trains biases of the base, which zero_stage 3 has divided; use another stage"
        raise InputError(FailureCode.RECIPE_INVALID, message, param)


def _check_dora(param: str, dora: bool, base: Any) -> None:
    # PEFT 0.21 loses the scales of a weight that it reads there.
    if dora and getattr(base, "is_loaded_in_8bit", False) and base.device.type == "cpu":
        message = f"{param}: DoRA on a base in 8 bits wants a GPU; use base_bits 4"
        raise InputError(FailureCode.PRECISION_UNAVAILABLE, message, param)


@contextlib.contextmanager
def _without_expected_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield


def _adapted(base: Any, config: LoraConfig) -> Any:
    """Raises ValueError for what PEFT cannot do to the model."""
    dtype = base.dtype
    model = get_peft_model(base, config)
    if dtype != torch.float32:
        for module in model.modules():
            if isinstance(module, ModulesToSaveWrapper):
                _train_in_fp32(module.modules_to_save["default"], dtype)
    fuse(model)
    return model


def _as_written(config: LoraConfig, base: Any, adapted: set[str]) -> str | set[str] | None:
    """The recipe's own target_modules, where PEFT finds the same modules by them."""
    if isinstance(config.target_modules, str) and base.config.model_type in TAKEN_NAMES:
        return None  # PEFT adds routed experts to what an expression matches there.
    found = {name for name, _ in base.named_modules() if check_target_module_exists(config, name)}
    return config.target_modules if found == adapted else None


def _lora_config(adapter: Adapter, transposed: bool, ties: bool) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules,
        bias=adapter.bias,
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        # trainer.model.loftq sets what PEFT would make anew each time that the adapter is loaded.
        init_lora_weights=True if adapter.init in ("default", "loftq") else adapter.init,
        modules_to_save=adapter.modules_to_save or None,
        rank_pattern=adapter.rank_pattern,
        alpha_pattern=adapter.alpha_pattern,
        fan_in_fan_out=transposed,
        ensure_weight_tying=ties,
    )


def _train_in_fp32(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Steps of a module that is trained whole would be lost in bf16. It takes and gives `dtype`, as it did before."""
    module.float()
    module.register_forward_pre_hook(_in_format_of_weights)
    module.register_forward_hook(lambda _, __, output: output.to(dtype))


def _in_format_of_weights(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Of fp32, or of what an engine has made of it."""
    dtype = next(module.parameters()).dtype
    return tuple(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in inputs)
