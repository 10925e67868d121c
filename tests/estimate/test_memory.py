"""The parts of an estimate. That they are what a run takes is held by trainer/test_estimates.py."""

from typing import Any

import pytest

from contract.machine import Gpu, Machine
from estimate.activations import Row
from estimate.architecture import Unknown, count, read_architecture
from estimate.memory import Memory, Place, fits, memory, places
from tests.estimate.llamas import CONFIG, PARAMETERS, model, recipe, shapes

GIB = 2**30
ROW = Row(tokens=2048, documents=1, supervised=512)
A100 = Place(True, "bf16", 40 * GIB)


def told(ranks: int = 1, place: Place = A100, row: Row = ROW, **fields: Any) -> Memory:
    given = recipe(batch={"micro_batch_size": 1}, **fields)
    return memory(given, model(given), row, place, ranks)


def test_a_llama_of_7_billion_has_the_numbers_that_everybody_counts() -> None:
    assert count(shapes()) == PARAMETERS


def test_lora_of_all_linear_modules_has_as_many_numbers_as_papers_say() -> None:
    # 32 layers of r (in + out): four of 4096 + 4096, three of 4096 + 11008.
    assert model(recipe(adapter={"r": 16})).trained.parameters == 32 * 16 * (4 * 8192 + 3 * 15104) == 39_976_960


def test_weights_take_two_bytes_in_bf16_and_half_a_byte_where_they_are_in_4_bits() -> None:
    linear = PARAMETERS - 2 * 32000 * 4096 - 65 * 4096
    assert told().weights == 2 * PARAMETERS
    assert told(base_bits=4).weights == pytest.approx(0.516 * linear + 2 * (PARAMETERS - linear), rel=1e-3)
    assert told(base_bits=8).weights == pytest.approx(linear + 2 * (PARAMETERS - linear), rel=1e-3)


def test_what_is_trained_is_in_fp32_with_two_moments() -> None:
    plain, small = told(), told(optimizer={"type": "adamw_8bit"})
    assert (plain.adapter, plain.gradients, plain.optimizer) == (4 * 39_976_960, 4 * 39_976_960, 8 * 39_976_960)
    assert small.optimizer == pytest.approx(plain.optimizer / 4, rel=0.02)


def test_checkpointed_activations_are_a_layers_and_its_inputs() -> None:
    whole, checkpointed = told(), told(gradient_checkpointing=True)
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
def test_what_an_engine_divides_is_a_ranks_part(parallel: dict[str, Any], divided: set[str]) -> None:
    one, four = told(), told(ranks=4, parallel=parallel)
    for part in ("weights", "adapter", "gradients", "optimizer"):
        if part in divided:
            assert getattr(four, part) == pytest.approx(getattr(one, part) / 4)
        elif not (part == "optimizer" and parallel):
            assert getattr(four, part) == getattr(one, part)


def test_what_deepspeed_divides_of_the_optimizer_has_a_copy_of_the_adapter_with_it() -> None:
    assert told(ranks=4, parallel={"engine": "deepspeed"}).optimizer == 12 * 39_976_960 / 4


def test_gradients_come_as_activations_go_in_a_step_of_one_pass() -> None:
    one = told()
    assert one.total == sum(size for name, size in vars(one).items() if name != "in_turn") - one.gradients
    several = told(ranks=2)
    assert several.total == sum(size for name, size in vars(several).items() if name != "in_turn")


@pytest.mark.parametrize(("share", "verdict"), [(0.7, True), (0.9, None), (1.1, None), (1.3, False)])
def test_what_is_within_a_quarter_of_the_memory_is_not_said_to_fit_or_not_to(
    share: float, verdict: bool | None
) -> None:
    taken = told()
    assert fits(taken, Place(True, "bf16", int(taken.total / share))) is verdict
    assert fits(taken, Place(True, "bf16", None)) is None


def test_places_are_a_machines_gpus_by_kind_or_the_ranks_parts_of_its_memory() -> None:
    def gpu(name: str, memory: int | None, capability: tuple[int, int]) -> Gpu:
        return Gpu(uuid=name, name=name, memory_bytes=memory, compute_capability=capability)

    cards = [gpu("T4", 16, (7, 5)), gpu("A", 80, (8, 0)), gpu("B", 80, (8, 0)), gpu("shared", None, (9, 0))]
    machine = Machine(gpus=cards, cores=8, cpu_bf16=True, slots=4, memory_bytes=100)
    assert places(recipe(), machine) == [Place(True, "bf16", 100), Place(True, "bf16", 80), Place(True, "fp32", 16)]
    without = machine.model_copy(update={"gpus": []})
    assert places(recipe(resources={"gpus": 2}), without) == [Place(False, "bf16", 50)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model_type": "mamba"}, '"mamba" keeps'),
        ({"model_type": ["llama"]}, "has not been counted"),
        ({"sliding_window": 4096}, "sliding window"),
        ({"num_hidden_layers": "many"}, "no num_hidden_layers"),
    ],
)
def test_what_has_not_been_counted_is_not_told_and_the_reason_is(change: dict[str, Any], why: str) -> None:
    with pytest.raises(Unknown, match=why):
        read_architecture(CONFIG | change, shapes())
