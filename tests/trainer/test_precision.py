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


def test_auto_precision_is_bf16_where_supported(bf16: bool) -> None:
    assert resolve_precision(wants("auto"), CPU) == ("bf16" if bf16 else "fp32")


def test_requested_precision_runs_or_is_refused(bf16: bool) -> None:
    assert resolve_precision(wants("fp32"), CPU) == "fp32"
    assert resolve_precision(wants("fp16"), CPU) == "fp16"
    if bf16:
        assert resolve_precision(wants("bf16"), CPU) == "bf16"
    else:
        refused(wants("bf16"), "does not compute in it")
    refused(wants("fp16", parallel={"engine": "deepspeed"}), "no fp16 on a CPU")


@pytest.mark.parametrize(("capability", "able"), [((8, 6), False), ((8, 9), True), ((9, 0), True), ((12, 0), True)])
def test_fp8_needs_a_gpu_of_today(capability: tuple[int, int], able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr("trainer.precision.has_native_bf16", lambda device: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Something")
    if able:
        assert resolve_precision(wants("fp8"), gpu) == "fp8"
    else:
        refused(wants("fp8"), 'capability 8.9 on .* this is a NVIDIA Something; use "bf16"', gpu)


def refused(recipe: Recipe, words: str, device: torch.device = CPU) -> None:
    with pytest.raises(InputError, match=words) as caught:
        resolve_precision(recipe, device)
    assert (caught.value.failure.code, caught.value.failure.param) == (
        FailureCode.PRECISION_UNAVAILABLE,
        "precision",
    )


def test_trainer_and_the_worker_ask_the_cpu_alike() -> None:
    assert has_native_bf16(CPU) is has_bf16(Path("/proc/cpuinfo").read_text())


def test_fsdp_of_an_older_torch_has_no_bf16(monkeypatch: pytest.MonkeyPatch, bf16: bool) -> None:
    fsdp = {"parallel": {"engine": "fsdp"}}
    assert resolve_precision(wants("auto", **fsdp), CPU) == ("bf16" if bf16 else "fp32")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.0+cpu"))
    assert resolve_precision(wants("auto", **fsdp), CPU) == "fp32"
    refused(wants("bf16", **fsdp), "needs torch 2.9")


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_model_loaded_in_another_format_is_noticed(bits: int | None, recipe: dict[str, Any]) -> None:
    for held, dtype in DTYPES.items():
        if held == "fp8" and bits is not None:
            continue  # the recipe has one of them
        given = recipe | {"base_bits": bits} | ({"precision": "fp8"} if held == "fp8" else {})
        model = load_model(Recipe.model_validate(given), dtype, CPU)
        check_precision(model, held)
        for other in DTYPES.keys() - {held}:
            with pytest.raises(RuntimeError, match=f"in place of {other}"):
                check_precision(model, other)
