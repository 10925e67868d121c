"""Puts a LoRA adapter on a base model: a new one, or one from an earlier job."""

import contextlib
import math
import re
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file
from transformers.pytorch_utils import Conv1D

from contract.failure import FailureCode, InputError
from contract.formatting import truncate
from contract.model.earlier_adapter import WEIGHTS, check_earlier_adapter
from contract.model.stacked_experts import adapted_parameter
from contract.model.target_modules import TAKEN_NAMES, check_adapter, describe_skipped, suffixes
from contract.model.trained_modules import TrainedModules, trained_modules
from contract.recipe import CHANGES_BASE, Adapter
from trainer.model.expert_lora import fuse_experts
from trainer.model.fused_lora import fuse
from trainer.model.plain_lora import lora_tensors

_EXPECTED_WARNINGS = (
    "`is_gradient_checkpointing`",  # PEFT 0.21 reads an attribute under its name from before transformers 5.
    "fan_in_fan_out is set to",  # GPT-2's head is its only linear module that is not transposed; PEFT corrects that.
    "Using Rank-Stabilized LoRA with rank_pattern",  # trainer.model.plain_lora converts what PEFT cannot.
)


def add_adapter(base: Any, adapter: Adapter) -> Any:
    """Puts LoRA (Hu et al. 2021, arXiv:2106.09685) in fp32 on the recipe's modules; the model's output does not change
    yet.

    Raises InputError for names that the model does not have, and for modules that cannot be adapted.
    """
    shapes = weight_shapes(base)
    targets = check_adapter(adapter, shapes, base.config.model_type)
    transposed = any(isinstance(module, Conv1D) for module in base.modules())
    if transposed and adapter.init == "olora":
        message = (
            f"adapter.init: got {adapter.init!r}; a {base.config.model_type} has its weights transposed, use 'pissa'"
        )
        raise InputError(FailureCode.RECIPE_INVALID, message, "adapter.init")
    _check_bias("adapter.bias", adapter.bias, base)
    _check_dora("adapter.dora", adapter.dora, base)
    _check_experts("adapter.experts", bool(targets.experts), base)
    # Embeddings that are trained whole stay tied to the head, so that the adapter can be merged.
    embedding = next(name for name, module in base.named_modules() if module is base.get_input_embeddings())
    tied = getattr(base.config, "tie_word_embeddings", False)
    ties = tied and embedding.rsplit(".", 1)[-1] in adapter.modules_to_save
    try:
        with _without_expected_warnings():
            config = _lora_config(adapter, transposed, ties)
            config.target_modules = _as_written(config, base, targets.adapted) or targets.adapted
            config.target_parameters = _parameter_names(base, targets.experts)
            model = _adapted(base, config)
    except ValueError as error:
        raise InputError(
            FailureCode.TARGET_MODULES_UNMATCHED, f"adapter.target_modules: {error}", "adapter.target_modules"
        ) from error
    if adapter.init in CHANGES_BASE:
        model.initial_lora = lora_tensors(model)
    model.skipped = describe_skipped(targets)
    model.trained = _trained_modules(model, shapes)
    return model


def continue_adapter(base: Any, folder: Path, dropout: float) -> Any:
    """The adapter that PEFT has saved in `folder`, in fp32, to be trained further with its own shape.

    Raises InputError for a folder without a LoRA for this model. Reads nothing but safetensors and JSON.
    """
    shapes = weight_shapes(base)
    check_saved_adapter(folder, base)
    config = LoraConfig.from_pretrained(str(folder))
    _check_bias("adapter.start_from", config.bias, base)
    _check_dora("adapter.start_from", config.use_dora, base)
    _check_experts("adapter.start_from", bool(config.target_parameters), base)
    config.task_type = "CAUSAL_LM"
    config.inference_mode = False
    config.lora_dropout = dropout
    config.base_model_name_or_path = None  # PEFT warns if the model has moved.
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
                f"for {name} its {WEIGHTS} has {_format_shape(given.get(name))}, its adapter_config.json on this "
                f"model needs {_format_shape(wanted.get(name))}",
            )
    set_peft_model_state_dict(model, tensors)
    model.trained = _trained_modules(model, shapes)
    return model


def check_saved_adapter(folder: Path, base: Any) -> None:
    """Raises InputError for a folder without a LoRA for this model. PEFT itself would load a pickle if there were no
    safetensors, and ask the hub if there were neither."""
    check_earlier_adapter(folder, weight_shapes(base), Path(base.name_or_path).name)


def weight_shapes(base: Any) -> dict[str, list[int]]:
    """Shape of every weight by its name, even if it is packed in 4 bits or sharded by DeepSpeed."""
    shapes = {}
    for name, parameter in base.named_parameters():
        whole = getattr(parameter, "quant_state", parameter)
        shapes[name] = list(getattr(parameter, "ds_shape", whole.shape))
    return shapes


def _trained_modules(model: Any, base: dict[str, list[int]]) -> list[TrainedModules]:
    """As a plan lists them. `base` are the shapes of the base's weights."""
    trained = {name: whole for name, whole in weight_shapes(model).items() if model.get_parameter(name).requires_grad}
    numbers: dict[str, int] = {}
    for name, shape in trained.items():
        module = _adapted_name(name, trained, base)
        numbers[module] = numbers.get(module, 0) + math.prod(shape)
    return trained_modules(numbers, base)


def _adapted_name(name: str, trained: dict[str, list[int]], base: dict[str, list[int]]) -> str:
    """The base's module, or its parameter of routed experts, to which a trained tensor belongs."""
    module, lora, _ = name.removeprefix("base_model.model.").partition(".lora_")
    if not lora:
        return re.sub(r"\.(base_layer|modules_to_save\.default)", "", module).rpartition(".")[0]
    a, b = (trained.get(f"base_model.model.{module}.lora_{part}.default.weight") for part in "AB")
    parameter = adapted_parameter(module, a, b, base) if a and b else None
    return parameter.removesuffix(".weight") if parameter else module


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def _format_shape(shape: list[int] | None) -> str:
    return "nothing" if shape is None else " x ".join(map(str, shape))


def _does_not_fit(folder: Path, message: str) -> InputError:
    param = "adapter.start_from"
    return InputError(FailureCode.RECIPE_INVALID, f"{param}: {truncate(folder.name)}: {message}", param)


def _check_bias(param: str, bias: str, base: Any) -> None:
    quantized = getattr(base, "is_quantized", False)
    if bias != "none" and (base.dtype != torch.float32 or quantized):
        held = "4 or 8 bits" if quantized else base.dtype
        message = f"{param}: bias {bias!r} trains biases of the base, which is in {held}; use precision fp32"
        raise InputError(FailureCode.PRECISION_UNAVAILABLE, message, param)
    if bias != "none" and _is_divided(base):
        message = f"{param}: bias {bias!r} trains biases of the base, which zero_stage 3 has divided; use another stage"
        raise InputError(FailureCode.RECIPE_INVALID, message, param)


def _check_dora(param: str, dora: bool, base: Any) -> None:
    # PEFT 0.21 loses the scales of a weight that it reads there.
    if dora and getattr(base, "is_loaded_in_8bit", False) and base.device.type == "cpu":
        message = f"{param}: DoRA on a base in 8 bits needs a GPU; use base_bits 4"
        raise InputError(FailureCode.PRECISION_UNAVAILABLE, message, param)


def _check_experts(param: str, adapts_experts: bool, base: Any) -> None:
    # DeepSpeed gathers A and B when their modules are called, and PEFT reads them without a call.
    if adapts_experts and _is_divided(base):
        message = f"{param}: zero_stage 3 divides the LoRA of routed experts; use another stage, or engine fsdp"
        raise InputError(FailureCode.RECIPE_INVALID, message, param)


def _is_divided(base: Any) -> bool:
    return any(hasattr(parameter, "ds_shape") for parameter in base.parameters())


@contextlib.contextmanager
def _without_expected_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield


def _adapted(base: Any, config: LoraConfig) -> Any:
    """Raises ValueError for modules that PEFT cannot adapt."""
    dtype = base.dtype
    model = get_peft_model(base, config)
    if dtype != torch.float32:
        for module in model.modules():
            if isinstance(module, ModulesToSaveWrapper):
                _train_in_fp32(module.modules_to_save["default"], dtype)
    fuse(model)
    fuse_experts(model)
    return model


def _as_written(config: LoraConfig, base: Any, adapted: set[str]) -> str | set[str] | None:
    """The recipe's own target_modules, if PEFT finds the same modules by them."""
    if isinstance(config.target_modules, str) and base.config.model_type in TAKEN_NAMES:
        return None  # PEFT adds routed experts to the matches of an expression there.
    if not isinstance(config.target_modules, str):
        # Other names are those of routed experts' parameters.
        config.target_modules &= {ending for module in adapted for ending in suffixes(module)}
    found = {name for name, _ in base.named_modules() if check_target_module_exists(config, name)}
    return config.target_modules if found == adapted else None


def _parameter_names(base: Any, experts: Collection[str]) -> list[str]:
    """The last parts of the parameters' names, if they match nothing else; PEFT matches parameters by these."""
    endings = sorted({".".join(name.split(".")[-2:]) for name in experts})
    found = {name for name, _ in base.named_parameters() if name.endswith(tuple(f".{each}" for each in endings))}
    return endings if found == experts else sorted(experts)


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
        # trainer.model.loftq sets these values. PEFT would compute them again whenever the adapter is loaded.
        init_lora_weights=True if adapter.init in ("default", "loftq") else adapter.init,
        modules_to_save=adapter.modules_to_save or None,
        rank_pattern=adapter.rank_pattern,
        alpha_pattern=adapter.alpha_pattern,
        fan_in_fan_out=transposed,
        ensure_weight_tying=ties,
    )


def _train_in_fp32(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Keeps a module that is trained whole in fp32, since bf16 would lose its small steps. Its input and output stay in
    `dtype`."""
    module.float()
    module.register_forward_pre_hook(_in_format_of_weights)
    module.register_forward_hook(lambda _, __, output: _in_format(output, dtype))


def _in_format(output: Any, dtype: torch.dtype) -> Any:
    """A router returns several tensors, some of them integers."""
    if isinstance(output, tuple):
        return tuple(_in_format(each, dtype) for each in output)
    return output.to(dtype) if output.is_floating_point() else output


def _in_format_of_weights(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Casts the inputs to the format of the weights: fp32, or what an engine has made of it."""
    dtype = next(module.parameters()).dtype
    return tuple(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in inputs)
