"""Checks that a job's adapter can be trained further on a base model, without torch and without reading weights."""

import json
import re
from pathlib import Path
from typing import Any

from contract.failure import FailureCode, InputError
from contract.formatting import format_value, truncate
from contract.json_objects import unique_object
from contract.model.folder import tensor_shapes
from contract.model.stacked_experts import adapted_parameter, is_routed_expert

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PARAM = "adapter.start_from"

_INITS = (True, False, "gaussian", "orthogonal")
"""Values of PEFT's init_lora_weights that leave the base unchanged."""
_LORA = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector(\.weight)?)"
)


def check_earlier_adapter(folder: Path, shapes: dict[str, list[int]], base: str) -> None:
    """`folder` was written by PEFT's save_pretrained. `shapes` are those of the base model's weights, and `base` is its
    name.

    Raises InputError if one of the two files is missing, if it is not a LoRA, or if it does not fit the base. Only
    shapes are compared, since a model may have been renamed.
    """
    config = _config(folder)
    tensors = {name.removeprefix("base_model.model."): shape for name, shape in _tensors(folder).items()}
    made_for = config.get("base_model_name_or_path")
    for name in tensors:
        problem = _shape_problem(name, tensors, shapes)
        if problem:
            raise _refused(
                folder,
                f"was made for {format_value(made_for) if made_for else 'another model'} and does not fit "
                f"{truncate(base)}: "
                f"{problem}; give the model that it was made for, or leave start_from out",
            )


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        raise _refused(folder, f"has no {CONFIG}; {_EXPECTED}")
    try:
        config = json.loads(file.read_bytes(), object_pairs_hook=unique_object)
    except (ValueError, RecursionError) as error:
        raise _refused(folder, f"{CONFIG} is not JSON: {truncate(str(error), 200)}; {_EXPECTED}") from error
    if not isinstance(config, dict):
        raise _refused(folder, f"{CONFIG} is not a JSON object; {_EXPECTED}")
    if (kind := config.get("peft_type")) != "LORA":
        raise _refused(folder, f"its peft_type is {format_value(kind)}; only a LORA can be trained further")
    init = config.get("init_lora_weights", True)
    if init not in _INITS:
        raise _refused(
            folder,
            f"its init_lora_weights is {format_value(init)}, which has changed the base; save it converted to plain "
            "LoRA (PEFT: path_initial_model_for_weight_conversion)",
        )
    return config


def _tensors(folder: Path) -> dict[str, list[int]]:
    file = folder / WEIGHTS
    if not file.is_file():
        pickled = " (its adapter_model.bin is a pickle, which is never loaded)"
        raise _refused(
            folder, f"has no {WEIGHTS}{pickled if (folder / 'adapter_model.bin').exists() else ''}; {_EXPECTED}"
        )
    try:
        tensors = tensor_shapes(file)
    except (ValueError, RecursionError, OSError) as error:
        raise _refused(folder, f"{WEIGHTS} is not a whole safetensors file: {truncate(str(error), 200)}") from error
    if not tensors:
        raise _refused(folder, f"{WEIGHTS} has no weights in it; {_EXPECTED}")
    return tensors


_EXPECTED = f"start_from needs an adapter saved by a job or by PEFT's save_pretrained: {CONFIG} and {WEIGHTS}"


def _shape_problem(name: str, tensors: dict[str, list[int]], shapes: dict[str, list[int]]) -> str | None:
    """What is wrong with a tensor of the adapter, or None."""
    lora, shape = _LORA.fullmatch(name), tensors[name]
    if lora is not None and _adapts_experts(lora["module"], shapes):
        return _expert_problem(lora["module"], tensors, shapes)
    weight = _find(f"{lora['module']}.weight" if lora else name, shapes)
    if weight is None:
        if lora is None and shape in shapes.values():
            return None  # A head that is tied to the embeddings is in no file.
        return f"there is no {truncate(lora['module'] if lora else name)}"
    if lora is None:
        return (
            None
            if shape == weight
            else f"its {truncate(name)} is {_format_shape(shape)}, the model's {_format_shape(weight)}"
        )
    # A is [r, in] and B [out, r]; all others are [out]. Which dimension of a weight is `in` depends on the kind of
    # module.
    if shape and (shape[-1] if "_A" in lora["part"] else shape[0]) in weight:
        return None
    return (
        f"its {truncate(lora['module'])} has {lora['part']} {_format_shape(shape)}, the model's weight is "
        f"{_format_shape(weight)}"
    )


def _adapts_experts(module: str, shapes: dict[str, list[int]]) -> bool:
    return is_routed_expert(module) or len(shapes.get(f"{module}.weight", [])) == 3


def _expert_problem(module: str, tensors: dict[str, list[int]], shapes: dict[str, list[int]]) -> str | None:
    if re.search(r"\.experts\.\d+\.", module):
        return f"its {truncate(module)} adapts one routed expert, and transformers 5 has all of a layer in one matrix"
    a, b = (tensors.get(f"{module}.lora_{part}.weight") for part in "AB")
    if a and b and adapted_parameter(module, a, b, shapes) is not None:
        return None
    fits = f"{_format_shape(a or [])} and {_format_shape(b or [])}"
    return f"its {truncate(module)} has A and B of {fits}, which no matrices of the model's experts are"


def _find(name: str, shapes: dict[str, list[int]]) -> list[int] | None:
    """Some families' files omit the backbone's own name, with which every name in an adapter begins."""
    return shapes.get(name, shapes.get(name.partition(".")[2]))


def _format_shape(shape: list[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _refused(folder: Path, message: str) -> InputError:
    return InputError(FailureCode.RECIPE_INVALID, f"{_PARAM}: {truncate(folder.name)} {message}", _PARAM)
