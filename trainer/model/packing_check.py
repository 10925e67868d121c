"""Whether a packed row gives what its documents give alone. A small random model of the same configuration shows it."""

import copy
import functools
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from contract.formatting import truncate
from dataset.document import Document
from trainer.data.items import Pair
from trainer.data.packing import PackedBatch, pack
from trainer.infrastructure import is_infrastructure, is_out_of_memory
from trainer.model.backbone import backbone_of, outer_parameters
from trainer.model.mixers import call_by_document, layer_parts
from trainer.model.row_path import RowPath
from trainer.model.small_config import FIRST_SPECIAL, shrink
from trainer.model.trained_model import TrainedModel

LENGTHS = (5, 21, 1, 14)
"""Tokens of the documents in the row. One is longer than two windows and two chunks, and no chunk starts with it."""

_TOLERANCES = {"loss": 1e-5, "gradient": 1e-4}
_MOST_PARAMETERS = 20_000_000
_SPREAD = 0.1
"""Standard deviation of the noise on the weights. Fresh ones are so small that hardly anything passes among tokens."""
_LONGEST_REASON = 300
_SOURCES = (
    "attention.py",
    "backbone.py",
    "head.py",
    "mixers.py",
    "own_head.py",
    "packing_check.py",
    "small_config.py",
    "trained_model.py",
)

Gradients = dict[str, torch.Tensor]


class _Bare:
    """A model in the place of one with an adapter."""

    def __init__(self, base: Any) -> None:
        self._base = base

    def __call__(self, **given: Any) -> Any:
        return self._base(**given)

    def get_base_model(self) -> Any:
        return self._base


def find_path(config: Any, cache: Path | None) -> RowPath:
    """The fastest path on which the small model has the loss and the gradients of its documents alone.

    The folder `cache` keeps the answer for this configuration, apart from its sizes, and these versions.
    """
    try:
        small = shrink(config)
    except Exception as error:
        return RowPath(False, because=f"no small {config.model_type} can be made to check it: {_describe(error)}")
    key = _key(small)
    file = cache / "packing" / f"{key}.json" if cache is not None else None
    if file is not None and (found := _read(file)) is not None:
        return found
    path = _check_once(key, small)
    if file is not None:
        _write(file, path)
    return path


@functools.cache
def _sources() -> str:
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in _SOURCES)).hexdigest()


def _key(small: Any) -> str:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    parts = {"config": small.to_dict(), "class": type(small).__name__, "versions": versions, "sources": _sources()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _read(file: Path) -> RowPath | None:
    try:
        fields = json.loads(file.read_bytes())
        return RowPath(**fields | {"separated": tuple(fields["separated"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _write(file: Path, path: RowPath) -> None:
    """Complete or absent, for other processes. Lost in a power cut, it is found again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as beside:
        beside.write(json.dumps(asdict(path)))
    os.replace(beside.name, file)


_known: dict[str, RowPath] = {}


def _check_once(key: str, small: Any) -> RowPath:
    if key not in _known:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # more would mostly wait for each other
        try:
            # The adapter's first weights come from the same random numbers, whether or not there was a check.
            with torch.random.fork_rng(devices=[]):
                _known[key] = check(small)
        finally:
            torch.set_num_threads(threads)
    return _known[key]


def check(small: Any) -> RowPath:
    """The path for a small configuration."""
    kind = small.model_type
    try:
        model = make_small_model(small)
        batch = _make_batch()
        expected = _loss_and_gradients(model, RowPath(False), batch)
    except Exception as error:
        _raise_if_infrastructure(error)
        return RowPath(False, because=f"a small {kind} cannot be run to check it: {_describe(error)}")
    difference = ""
    for separated in _separations(model, batch):
        for plain_head in (True, False):
            path = RowPath(True, plain_head, separated)
            difference = _difference(model, path, batch, expected)
            if not difference:
                because = f"a small {kind} has the same loss and gradients packed"
                return replace(path, shares_prompts=_can_share(model, path), because=because)
    return RowPath(False, because=f"a small {kind} {difference}")


def _separations(model: Any, batch: PackedBatch) -> Iterator[tuple[str, ...]]:
    yield ()
    if mixers := _find_mixers(model, batch):
        yield mixers


def make_small_model(small: Any) -> Any:
    """A random model of a small configuration. Raises whatever its class raises."""
    kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(small)]
    if kind.config_class is small.sub_configs.get("text_config"):
        small = small.get_text_config()
    torch.default_generator.manual_seed(0)
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in kind(small).parameters())
    if size > _MOST_PARAMETERS:
        raise ValueError(f"it still has {size:,} parameters")
    model = kind(small).float().eval()
    for parameter in model.parameters():
        parameter.data += _SPREAD * torch.randn_like(parameter)
    # As in training, unless the recipe trains them.
    for parameter in [*model.get_output_embeddings().parameters(), *outer_parameters(model)]:
        parameter.requires_grad_(False)
    return model


def _can_share(model: Any, path: RowPath) -> bool:
    """Whether pairs have the same loss and gradients if what both documents begin with is in the row once."""
    if path.separated:
        return False
    pairs = _make_pairs()
    expected = _loss_and_gradients(model, path, replace(pack(pairs), answers=None))
    return not _difference(model, path, replace(pack(pairs, share_prompts=True), answers=None), expected)


def _make_batch() -> PackedBatch:
    return pack([_learn_from(_random_ids(length + 1), 1) for length in LENGTHS])


def _make_pairs() -> list[Pair]:
    """A long prompt, and one of a single token: with them, answers of several lengths."""
    pairs = []
    for prompt, chosen, rejected in ((LENGTHS[1], 9, 4), (1, 2, 6)):
        ids = _random_ids(prompt)
        one, other = (_learn_from(ids + _random_ids(length), prompt) for length in (chosen, rejected))
        pairs.append(Pair(one, other))
    return pairs


def _random_ids(count: int) -> list[int]:
    return torch.randint(3, FIRST_SPECIAL, (count,)).tolist()


def _learn_from(ids: list[int], first: int) -> Document:
    return Document(ids, [False] * first + [True] * (len(ids) - first))


def _loss_and_gradients(model: Any, path: RowPath, batch: PackedBatch) -> tuple[float, Gradients]:
    model = copy.deepcopy(model)
    loss, _ = TrainedModel(_Bare(model), path).eval()(batch)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _difference(model: Any, path: RowPath, batch: PackedBatch, expected: tuple[float, Gradients]) -> str:
    """Empty if there is none."""
    try:
        loss, gradients = _loss_and_gradients(model, path, batch)
    except Exception as error:
        _raise_if_infrastructure(error)
        return f"cannot take a packed row: {_describe(error)}"
    if abs(loss - expected[0]) > _TOLERANCES["loss"] * abs(expected[0]):
        return f"has the loss {loss:.6g} packed, and {expected[0]:.6g} one document at a time"
    largest = max(gradient.norm().item() for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        other = gradients.get(name, torch.zeros_like(gradient))
        allowed = _TOLERANCES["gradient"] * (gradient.norm().item() + 1e-3 * largest)
        if not (distance := (other - gradient).norm().item()) <= allowed:
            return f"has another gradient of {name} packed, by {distance / gradient.norm().item():.1e}"
    return ""


@torch.no_grad()
def _find_mixers(model: Any, batch: PackedBatch) -> tuple[str, ...]:
    """Classes of the layers' parts that give another result for the row than for each of its documents."""
    model = copy.deepcopy(model)
    module = TrainedModel(_Bare(model), RowPath(True)).eval()
    found = set()

    def compare(part: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        apart = call_by_document(part.forward, batch.lengths, args, kwargs)
        if _alike(apart, output) is False:
            found.add(type(part).__name__)

    for part in layer_parts(backbone_of(model)):
        part.register_forward_hook(compare, with_kwargs=True)
    try:
        module(batch)
    except Exception as error:
        _raise_if_infrastructure(error)
    return tuple(sorted(found))


def _alike(one: Any, other: Any) -> bool | None:
    """None if they cannot be compared, as documents that were not joined to a row."""
    ours, theirs = (torch.utils._pytree.tree_leaves(each) for each in (one, other))
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if isinstance(b, torch.Tensor)]
    if any(a.shape != b.shape for a, b in pairs):
        return None
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)


def _raise_if_infrastructure(error: Exception) -> None:
    if is_infrastructure(error) or is_out_of_memory(error):
        raise error


def _describe(error: Exception) -> str:
    return truncate(" ".join(f"{type(error).__name__}: {error}".split()), _LONGEST_REASON)
