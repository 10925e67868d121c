"""The parts of an estimate. That they are what a run takes is held by trainer/test_estimates.py."""

from typing import Any

import pytest

from contract.machine import Gpu, Machine
from estimate.architecture import NotEstimated, count_parameters, read_architecture
from estimate.inputs import DeviceKind, PackedRow
from estimate.memory import MemoryEstimate, device_kinds, estimate_memory, fits
from tests.estimate.llamas import CONFIG, PARAMETERS, model, recipe, shapes

GIB = 2**30
ROW = PackedRow(tokens=2048, documents=1, supervised=512)
A100 = DeviceKind(True, "bf16", 40 * GIB)


def reported(ranks: int = 1, place: DeviceKind = A100, row: PackedRow = ROW, **fields: Any) -> MemoryEstimate:
    given = recipe(batch={"micro_batch_size": 1}, **fields)
    return estimate_memory(given, model(given), row, place, ranks)


def test_llama_7b_has_the_published_parameter_count() -> None:
    assert count_parameters(shapes()) == PARAMETERS


def test_lora_has_the_published_parameter_counts() -> None:
    # 32 layers of r (in + out): four of 4096 + 4096, three of 4096 + 11008.
    assert model(recipe(adapter={"r": 16})).trained.parameters == 32 * 16 * (4 * 8192 + 3 * 15104) == 39_976_960


def test_weights_take_two_bytes_or_half_of_one() -> None:
    linear = PARAMETERS - 2 * 32000 * 4096 - 65 * 4096
    assert reported().weights == 2 * PARAMETERS
    assert reported(base_bits=4).weights == pytest.approx(0.516 * linear + 2 * (PARAMETERS - linear), rel=1e-3)
    scales = 4 * 32 * (4 * 8192 + 3 * 15104)
    assert reported(place=DeviceKind(True, "fp8", None), precision="fp8").weights == 2 * PARAMETERS + scales
    assert reported(base_bits=8).weights == pytest.approx(linear + 2 * (PARAMETERS - linear), rel=1e-3)


def test_trained_parameters_take_fp32_and_two_moments() -> None:
    plain, small = reported(), reported(optimizer={"type": "adamw_8bit"})
    assert (plain.adapter, plain.gradients, plain.optimizer) == (4 * 39_976_960, 4 * 39_976_960, 8 * 39_976_960)
    assert small.optimizer == pytest.approx(plain.optimizer / 4, rel=0.02)


def test_checkpointed_activations_are_a_layers_and_its_inputs() -> None:
    whole, checkpointed = reported(), reported(gradient_checkpointing=True)
    inputs = 32 * 2048 * 4096 * 2
    assert inputs < checkpointed.activations < inputs + whole.activations / 10


@pytest.mark.parametrize(
    ("parallel", "divided"),
    [
        ({}, set()),
        ({"engine": "deepspeed", "zero_stage": 2}, {"gradients"}),
        ({"engine": "deepspeed", "zero_stage": 3}, {"weights", "adapter", "gradients"}),
        ({"engine": "fsdp"}, {"weights", "adapter", "gradients", "optimizer"}),
    ],
)
def test_sharded_memory_is_one_rank_share(parallel: dict[str, Any], divided: set[str]) -> None:
    one, four = reported(), reported(ranks=4, parallel=parallel)
    for part in ("weights", "adapter", "gradients", "optimizer"):
        if part in divided:
            assert getattr(four, part) == pytest.approx(getattr(one, part) / 4)
        elif not (part == "optimizer" and parallel):
            assert getattr(four, part) == getattr(one, part)


def test_deepspeed_keeps_a_copy_of_the_adapter() -> None:
    assert reported(ranks=4, parallel={"engine": "deepspeed"}).optimizer == 12 * 39_976_960 / 4


def test_gradients_replace_activations_in_one_pass() -> None:
    one = reported()
    assert one.total == sum(size for name, size in vars(one).items() if name != "in_turn") - one.gradients
    several = reported(ranks=2)
    assert several.total == sum(size for name, size in vars(several).items() if name != "in_turn")


@pytest.mark.parametrize(("share", "verdict"), [(0.7, True), (0.9, None), (1.1, None), (1.3, False)])
def test_fit_within_the_tolerance_is_unknown(share: float, verdict: bool | None) -> None:
    taken = reported()
    assert fits(taken, DeviceKind(True, "bf16", int(taken.total / share))) is verdict
    assert fits(taken, DeviceKind(True, "bf16", None)) is None


def test_device_kinds_are_gpus_or_rank_memory() -> None:
    def gpu(name: str, estimate_memory: int | None, capability: tuple[int, int]) -> Gpu:
        return Gpu(uuid=name, name=name, memory_bytes=estimate_memory, compute_capability=capability)

    cards = [gpu("T4", 16, (7, 5)), gpu("A", 80, (8, 0)), gpu("B", 80, (8, 0)), gpu("shared", None, (9, 0))]
    machine = Machine(gpus=cards, cores=8, cpu_bf16=True, slots=4, memory_bytes=100)
    assert device_kinds(recipe(), machine) == [
        DeviceKind(True, "bf16", 100),
        DeviceKind(True, "bf16", 80),
        DeviceKind(True, "fp32", 16),
    ]
    without = machine.model_copy(update={"gpus": []})
    assert device_kinds(recipe(resources={"gpus": 2}), without) == [DeviceKind(False, "bf16", 50)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model_type": "mamba"}, '"mamba" keeps'),
        ({"model_type": ["llama"]}, "is unknown"),
        ({"sliding_window": 4096}, "sliding window"),
        ({"num_hidden_layers": "many"}, "no num_hidden_layers"),
    ],
)
def test_uncounted_memory_is_null_with_a_reason(change: dict[str, Any], why: str) -> None:
    with pytest.raises(NotEstimated, match=why):
        read_architecture(CONFIG | change, shapes())
