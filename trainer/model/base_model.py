"""Loads the base model and prepares it for training an adapter."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import AutoConfig
from transformers.utils import find_adapter_config_file
from transformers.utils.logging import disable_progress_bar

from contract.failure import FailureCode, InputError
from contract.formatting import truncate
from contract.model.config import unsupported
from contract.model.folder import read_weight_headers
from contract.model.quantisation import find_quantisation
from contract.model.stored_bits import with_stored_bits
from contract.recipe import Recipe
from trainer.infrastructure import is_disk_full, is_infrastructure, is_out_of_memory
from trainer.methods.choose import choose_objective
from trainer.model import fp8
from trainer.model.adapter import add_adapter, continue_adapter
from trainer.model.packing_check import find_path
from trainer.model.pretrained import download, load_by_config
from trainer.model.row_path import RowPath
from trainer.model.trained_model import TrainedModel

_SHOWN = 3
_LONGEST_REASON = 600


def load_model(recipe: Recipe, dtype: torch.dtype, device: torch.device, cache: Path | None = None) -> TrainedModel:
    """The base model in `dtype`, in `base_bits` or in FP8, frozen, with an adapter in fp32: a new one that changes
    nothing yet, or an earlier one. The folder `cache` keeps how rows go through its architecture.

    Raises InputError for a model that cannot be loaded and for an adapter that does not fit it.
    """
    disable_progress_bar()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # set per thread, and this may not be the main thread
    base, path = _load_base(recipe, dtype, device, cache)
    if path.separated and any(hasattr(parameter, "ds_id") for parameter in base.parameters()):
        # A rank with more documents in its row would gather the weights of such a part more often than the others.
        path = RowPath(False, because="zero_stage 3 gathers the weights of a layer's part at each call")
    in_fp8 = fp8.linear_modules(base) if recipe.precision == "fp8" else []
    adapter = recipe.adapter
    if adapter.start_from is not None:
        model = continue_adapter(base, Path(adapter.start_from), adapter.dropout)
    else:
        # Not before the loading: with ZeRO-3 some models draw numbers there.
        torch.manual_seed(recipe.seed)
        model = add_adapter(base, adapter)
    if adapter.init == "loftq":
        from trainer.model.loftq import start_near_base  # imports bitsandbytes, which takes more than a second

        start_near_base(model, recipe.model)
    # After the adapter, which takes its format and some of its initial values from whole weights.
    fp8.convert(in_fp8, model.peft_config["default"])
    model.peft_config["default"].base_model_name_or_path = public_name(recipe.model)
    if recipe.gradient_checkpointing:
        checkpoint_activations(base)
    return TrainedModel(model, path, recipe.neftune_alpha, choose_objective(recipe.method))


def _load_base(recipe: Recipe, dtype: torch.dtype, device: torch.device, cache: Path | None) -> tuple[Any, RowPath]:
    """The base model, and how rows go through it."""
    with loading_errors(recipe.model):
        path = find_path(read_config(recipe.model), cache)
    return load_base(recipe, dtype, device), path


def read_config(model: str) -> Any:
    """Raises ValueError for a folder with an adapter in it."""
    # It would be loaded too, from wherever it names as its base.
    if find_adapter_config_file(model) is not None:
        raise ValueError("it has an adapter in it; give its base, and give a job's adapter as adapter.start_from")
    return AutoConfig.from_pretrained(model, trust_remote_code=False)


def load_base(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> Any:
    """The base model alone, in the format in which the recipe trains on it. Raises InputError."""
    with loading_errors(recipe.model):
        config = read_config(recipe.model)
        stored = _stored_bits(recipe.model, config)
        bits = with_stored_bits(recipe, stored).base_bits
        if bits is not None:
            # bitsandbytes takes more than a second to import.
            from trainer.model.quantize import cast_unquantised, check_rows, compute_in, keep_trainable, quantization
        if stored is not None:
            compute_in(config, dtype)
        if recipe.method.type != "sft":
            turn_off_dropout(config)
        base, loaded = load_by_config(
            recipe.model,
            config,
            dtype,
            as_stored=stored is not None,
            quantization_config=quantization(bits, dtype) if bits is not None and stored is None else None,
            device_map={"": device} if device.type == "cuda" or bits is not None else None,
            ignore_mismatched_sizes=True,
        )
    _check_complete(loaded)
    if stored is not None:
        cast_unquantised(base, dtype)
    if bits == 4:
        check_rows(base)
        keep_trainable(base)
    return base


def turn_off_dropout(config: Any) -> None:
    """The base's own, since its noise would be in every difference between two answers. An adapter's stays."""
    text = config.get_text_config()
    for name, value in vars(text).items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(text, name, 0.0)


def _stored_bits(model: str, config: Any) -> Literal[4, 8] | None:
    """Bits of a base that is trained as its files store it."""
    if find_quantisation(config.to_dict()) is None:
        return None
    return read_weight_headers(download(model)).trained_bits


def max_positions(model: str) -> int | None:
    """Maximum tokens of a document, for a model with a table of positions, which fails beyond its end. None with RoPE
    or ALiBi, and without attention: any length works there.

    Raises InputError for a model whose configuration cannot be read.
    """
    with loading_errors(model):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config()
    if getattr(config, "rope_parameters", None):
        return None
    return getattr(config, "max_position_embeddings", None)


def _check_complete(loaded: dict[str, Any]) -> None:
    """transformers fills weights that are not in the files with random numbers."""
    missing = sorted(loaded["missing_keys"])
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise unsupported(
            f"its files have no {', '.join(missing[:_SHOWN])}{more}, which its config.json needs; give the files that "
            "belong together, of a model for text generation"
        )
    for name, given, wanted in sorted(loaded["mismatched_keys"]):
        raise unsupported(
            f"{name} is {_format_shape(given)} in its files and {_format_shape(wanted)} by its config.json; give the "
            "files that belong together"
        )


def _format_shape(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))


@contextmanager
def loading_errors(model: str) -> Iterator[None]:
    """Turns whatever transformers raises for a model into InputError. Faults of the machine pass unchanged."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        absent = isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError))
        if is_out_of_memory(error) or is_disk_full(error) or (is_infrastructure(error) and not absent):
            raise
        raise _cannot_load(model, error) from error


def _cannot_load(model: str, error: Exception) -> InputError:
    """A hub id that fails to load most often does not exist. A folder exists, so its content is at fault."""
    reason = FailureCode.MODEL_UNSUPPORTED if Path(model).is_dir() else FailureCode.MODEL_NOT_FOUND
    # Left out: a list of all architectures, and paragraphs of advice on installing transformers.
    said = " ".join(str(error).strip().replace(model, public_name(model)).partition("\n\n")[0].split())
    said = truncate(said.partition(" Model type should be one of")[0], _LONGEST_REASON)
    if "trust_remote_code" in str(error):  # the option that transformers recommends
        reason = FailureCode.MODEL_UNSUPPORTED
        said = "it has custom code, which is never run here; use a model of an architecture that transformers has"
    elif not isinstance(error, (OSError, ValueError)):
        said = (
            f"{type(error).__name__}: {said}; its files are damaged, or made for another version of transformers than "
            f"the {transformers.__version__} here"
        )
    return InputError(reason, f"model: cannot load {public_name(model)}: {said}", "model")


def checkpoint_activations(base: Any) -> None:
    """In training each layer keeps only its input and recomputes the rest in the backward pass.

    Raises InputError for an architecture that does not support it.
    """
    try:
        with warnings.catch_warnings():
            # The name since transformers 5.0; it will change in 6.
            warnings.filterwarnings("ignore", message="`gradient_checkpointing_enable` is deprecated")
            base.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        param = "gradient_checkpointing"
        message = f"{param}: a {base.config.model_type} cannot recompute its activations; leave it out"
        raise InputError(FailureCode.MODEL_UNSUPPORTED, message, param) from error
    # Without re-entry neither the embeddings nor anything before the first adapted layer needs a gradient.
    base.disable_input_require_grads()


def public_name(model: str) -> str:
    """The base model's name in the adapter's config: a hub id, or a folder's name without the server's path."""
    return Path(model).name if Path(model).is_dir() else model
