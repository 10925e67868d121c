"""Reads the names and shapes of a base model's weights from its safetensors headers, and checks an adapter by them: no
torch, no weights."""

from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from contract.expression import full_matches
from contract.failure import FailureReason, InputError
from contract.model_config import already_quantised, read_model_config, unsupported
from contract.quote import cut, quote
from contract.recipe import CHANGES_BASE, Adapter
from contract.tensor_header import Tensor, read_tensors
from contract.weight_files import weight_files

_TRAINABLE = ("F64", "F32", "F16", "BF16")


def weight_shapes(folder: Path) -> dict[str, list[int]]:
    """Shape of every weight that transformers loads, by its name.

    Raises InputError for a folder that cannot be loaded, as far as its configuration and headers tell: a torn or
    missing file, a model that is quantised already.
    """
    shapes: dict[str, list[int]] = {}
    for file, expected in weight_files(folder, read_model_config(folder)).items():
        tensors = _tensors(file)
        for name, tensor in tensors.items():
            if name.endswith(".weight") and len(tensor.shape) > 1 and tensor.dtype not in _TRAINABLE:
                raise already_quantised(f"{cut(file.name)} has {cut(name)} in {cut(tensor.dtype)}")
        lost = next((name for name in expected or () if name not in tensors), None)
        if lost is not None:
            problem = f"{cut(lost)} is not in {cut(file.name)}, where the index has it; copy or download both again"
            raise unsupported(problem)
        shapes |= {name: tensor.shape for name, tensor in tensors.items()}
    return shapes


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)
    # RecursionError: a header of nothing but brackets.
    except (ValueError, RecursionError, PermissionError) as error:
        problem = f"{cut(file.name)} is not a whole safetensors file: {cut(str(error), 200)}; copy or download it again"
        raise unsupported(problem) from error


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Of one safetensors file. Raises ValueError, RecursionError, OSError where it is none."""
    return {name: tensor.shape for name, tensor in read_tensors(path).items()}


def check_adapter(adapter: Adapter, shapes: dict[str, list[int]]) -> None:
    """Raises InputError for what only the model's weights can tell: names that are no module's, too high a rank."""
    saved = _named("adapter.modules_to_save", adapter.modules_to_save, _modules(shapes))
    # As in PEFT: what is trained whole needs no adapter.
    adapted = check_target_modules(adapter.target_modules, shapes) - saved
    _named("adapter.rank_pattern", adapter.rank_pattern, adapted)
    _named("adapter.alpha_pattern", adapter.alpha_pattern, adapted)
    if adapter.init in CHANGES_BASE | {"loftq"}:
        for module in sorted(adapted):
            _check_rank(adapter, module, min(shapes[f"{module}.weight"]))


def _check_rank(adapter: Adapter, module: str, full: int) -> None:
    pattern = next((name for name in adapter.rank_pattern if name in endings(module)), None)
    param, rank = (
        ("adapter.r", adapter.r) if pattern is None else ("adapter.rank_pattern", adapter.rank_pattern[pattern])
    )
    if rank > full:
        message = (
            f"{param}: got {rank}; adapter.init {quote(adapter.init)} has {full} parts of {cut(module)} to start from"
        )
        raise InputError(FailureReason.RECIPE_INVALID, message, param)


def check_target_modules(targets: str | Iterable[str], shapes: dict[str, list[int]]) -> set[str]:
    """The modules that `targets` matches, of those with a matrix of weights.

    A name of several matches a module's last parts, as in PEFT: "q_proj", "self_attn.q_proj". A string is "all-linear",
    or a regular expression for whole names. Raises InputError for what matches nothing; lists what would.
    """
    modules = _modules(shapes, dimensions=2)
    if targets == "all-linear":
        return {module for module in modules if _in_a_layer(module)}
    if isinstance(targets, str):
        matched = _full_matches(targets, modules)
        if not matched:
            example = next((module for module in sorted(modules) if _in_a_layer(module)), "")
            given = f"{quote(targets)}, a regular expression for whole names such as {cut(example)},"
            raise _unmatched("adapter.target_modules", given, modules)
        return matched
    return _named("adapter.target_modules", targets, modules)


def _named(param: str, names: Iterable[str], modules: Set[str]) -> set[str]:
    """The modules whose last parts are one of `names`. Raises InputError for a name that is no module's."""
    by_ending: dict[str, set[str]] = {}
    for module in modules:
        for ending in endings(module):
            by_ending.setdefault(ending, set()).add(module)
    matched: set[str] = set()
    for name in names:
        if name not in by_ending:
            raise _unmatched(param, quote(name), modules)
        matched |= by_ending[name]
    return matched


def _modules(shapes: dict[str, list[int]], dimensions: int | None = None) -> set[str]:
    return {
        name.removesuffix(".weight")
        for name, shape in shapes.items()
        if name.endswith(".weight") and dimensions in (None, len(shape))
    }


def _unmatched(param: str, given: str, modules: Set[str]) -> InputError:
    candidates = sorted({module.rsplit(".", 1)[-1] for module in modules if _in_a_layer(module)})
    message = f"{param}: {given} matches no module of the model; it has {', '.join(candidates)}"
    return InputError(FailureReason.TARGET_MODULES_UNMATCHED, message, param)


def _full_matches(expression: str, modules: Set[str]) -> set[str]:
    """Files of some families leave out the backbone's own name, which the loaded model has and PEFT matches."""
    spoken = {f"{prefix}{module}": module for prefix in ("transformer.", "model.", "") for module in modules}
    return {spoken[name] for name in full_matches("adapter.target_modules", expression, frozenset(spoken))}


def endings(module: str) -> Iterator[str]:
    """Its last part, its last two parts, and so on."""
    ending = module
    while ending:
        yield ending
        ending = ending.partition(".")[2]


def _in_a_layer(module: str) -> bool:
    """Embeddings and the output head stand outside the numbered layers."""
    return any(part.isdigit() for part in module.split("."))
