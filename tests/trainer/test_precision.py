"""Which number format a run has: what the recipe asks for, or a refusal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.torch_version import TorchVersion

from contract.failure import FailureCode, InputError
from contract.machine import has_bf16
from contract.recipe import Recipe
from trainer.model.base_model import load_model
from trainer.precision import DTYPES, check_precision, has_native_bf16, resolve_precision

CPU = torch.device("cpu")


def wants(precision: str, **more: Any) -> Recipe:
    return Recipe.model_validate({"model": "m", "dataset": "d", "precision": precision, **more})


@pytest.fixture(params=[True, False], ids=["with bf16", "without bf16"])
def bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr("trainer.precision.has_native_bf16", lambda device: request.param)
    return bool(request.param)


def test_auto_is_bf16_where_the_device_computes_in_it_and_else_fp32(bf16: bool) -> None:
    assert resolve_precision(wants("auto"), CPU) == ("bf16" if bf16 else "fp32")


def test_what_is_asked_for_is_what_runs_or_is_refused(bf16: bool) -> None:
    assert resolve_precision(wants("fp32"), CPU) == "fp32"
    assert resolve_precision(wants("fp16"), CPU) == "fp16"
    if bf16:
        assert resolve_precision(wants("bf16"), CPU) == "bf16"
    else:
        refused(wants("bf16"), "does not compute in it")
    refused(wants("fp16", parallel={"engine": "deepspeed"}), "no fp16 on a CPU")


def refused(recipe: Recipe, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        resolve_precision(recipe, CPU)
    assert (caught.value.failure.code, caught.value.failure.param) == (
        FailureCode.PRECISION_UNAVAILABLE,
        "precision",
    )


def test_the_trainer_and_the_worker_ask_the_cpu_alike() -> None:
    assert has_native_bf16(CPU) is has_bf16(Path("/proc/cpuinfo").read_text())


def test_fsdp_of_an_older_torch_has_no_bf16(monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    fsdp = {"parallel": {"engine": "fsdp"}}
    assert resolve_precision(wants("auto", **fsdp), CPU) == ("bf16" if bf16 else "fp32")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.0+cpu"))
    assert resolve_precision(wants("auto", **fsdp), CPU) == "fp32"
    refused(wants("bf16", **fsdp), "wants torch 2.9")


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_a_model_that_was_loaded_in_another_format_is_noticed(bits: int | None, recipe: dict[str, Any]) -> None:
    for held, dtype in DTYPES.items():
        model = load_model(Recipe.model_validate(recipe | {"base_bits": bits}), dtype, CPU)
        check_precision(model, held)
        for other in DTYPES.keys() - {held}:
            with pytest.raises(RuntimeError, match=f"in place of {other}"):
                check_precision(model, other)
