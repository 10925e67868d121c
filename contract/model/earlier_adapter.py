"""Checks that an adapter which a job has saved can be trained further on a base model: no torch, no weights."""

import json
import re
from pathlib import Path
from typing import Any

from contract.failure import FailureCode, InputError
from contract.model.folder import tensor_shapes
from contract.model.target_modules import is_routed_expert
from contract.quote import cut, quote

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PARAM = "adapter.start_from"

_INITS = (True, False, "gaussian", "orthogonal")
"""PEFT's init_lora_weights that leave the base as it is."""
_LORA = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector(\.weight)?)"
)


def check_earlier_adapter(folder: Path, shapes: dict[str, list[int]], base: str) -> None:
    """`folder` is what PEFT's save_pretrained has written; `shapes` are those of the weights of the base model, which
    people know as `base`.

    Raises InputError for a folder without the two files, for what is no LoRA or of another base than the adapter fits,
    by the shapes alone: a model may have been renamed.
    """
    config = _config(folder)
    tensors = _tensors(folder)
    made_for = config.get("base_model_name_or_path")
    for name, shape in tensors.items():
        misfit = _misfit(name.removeprefix("base_model.model."), shape, shapes)
        if misfit:
            raise _refused(
                folder,
                f"was made for {quote(made_for) if made_for else 'another model'} and does not fit {cut(base)}: "
                f"{misfit}; give the model that it was made for, or leave start_from out",
            )


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        raise _refused(folder, f"has no {CONFIG}; {_WANTED}")
    try:
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _refused(folder, f"{CONFIG} is not JSON: {cut(str(error), 200)}; {_WANTED}") from error
    if not isinstance(config, dict):
        raise _refused(folder, f"{CONFIG} is no JSON object; {_WANTED}")
    if (kind := config.get("peft_type")) != "LORA":
        raise _refused(folder, f"its peft_type is {quote(kind)}; only a LORA can be trained further")
    init = config.get("init_lora_weights", True)
    if init not in _INITS:
        raise _refused(
            folder,
            f"its init_lora_weights is {quote(init)}, which has changed the base; save it converted to plain LoRA "
            "(PEFT: path_initial_model_for_weight_conversion)",
        )
    return config


def _tensors(folder: Path) -> dict[str, list[int]]:
    file = folder / WEIGHTS
    if not file.is_file():
        pickled = " (its adapter_model.bin is a pickle, which is never loaded)"
        raise _refused(
            folder, f"has no {WEIGHTS}{pickled if (folder / 'adapter_model.bin').exists() else ''}; {_WANTED}"
        )
    try:
        tensors = tensor_shapes(file)
    except (ValueError, RecursionError, OSError) as error:
        raise _refused(folder, f"{WEIGHTS} is not a whole safetensors file: {cut(str(error), 200)}") from error
    if not tensors:
        raise _refused(folder, f"{WEIGHTS} has no weights in it; {_WANTED}")
    return tensors


_WANTED = f"start_from wants what a job has saved, or PEFT's save_pretrained: {CONFIG} and {WEIGHTS}"


def _misfit(name: str, shape: list[int], shapes: dict[str, list[int]]) -> str | None:
    """What is wrong with a tensor of the adapter, where something is."""
    lora = _LORA.fullmatch(name)
    if lora is not None and is_routed_expert(module := lora["module"].replace(".base_layer", "")):
        return _misfit_of_experts(module, shapes)
    weight = _find(f"{lora['module']}.weight" if lora else name, shapes)
    if weight is None:
        if lora is None and shape in shapes.values():
            return None  # A head that is also the embeddings is in no file of a model.
        return f"there is no {cut(lora['module'] if lora else name)}"
    if lora is None:
        return None if shape == weight else f"its {cut(name)} is {_words(shape)}, the model's {_words(weight)}"
    # A is [r, in] and B [out, r]; all else is [out]. Which of a weight's two is `in` depends on the kind of its module.
    if shape and (shape[-1] if "_A" in lora["part"] else shape[0]) in weight:
        return None
    return f"its {cut(lora['module'])} has {lora['part']} {_words(shape)}, the model's weight is {_words(weight)}"


def _misfit_of_experts(module: str, shapes: dict[str, list[int]]) -> str | None:
    """PEFT nests the adapters of the matrices that all experts of a layer have in common: names tell no more."""
    if re.search(r"\.experts\.\d+\.", module):
        return f"its {cut(module)} adapts one routed expert, and transformers 5 has all of a layer in one matrix"
    if any(name.startswith(f"{module}.") for name in shapes):
        return None
    return f"there is no {cut(module)}"


def _find(name: str, shapes: dict[str, list[int]]) -> list[int] | None:
    """Files of some families leave out the backbone's own name, with which every name of an adapter begins."""
    return shapes.get(name, shapes.get(name.partition(".")[2]))


def _words(shape: list[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _refused(folder: Path, message: str) -> InputError:
    return InputError(FailureCode.RECIPE_INVALID, f"{_PARAM}: {cut(folder.name)} {message}", _PARAM)
