from typing import Any

import pytest

from contract.failure import Failure, FailureReason, InputError
from contract.machine import Gpu, Machine, check_machines, unwise
from contract.recipe import Recipe


def gpus(count: int, capability: tuple[int, int], name: str) -> Machine:
    each = Gpu(uuid="GPU-1", name=name, memory_bytes=2**34, compute_capability=capability)
    return Machine(gpus=[each] * count, cores=8, cpu_bf16=True)


OLD_CPU = Machine(gpus=[], cores=4, cpu_bf16=False)
NEW_CPU = Machine(gpus=[], cores=4, cpu_bf16=True)
T4 = gpus(1, (7, 5), "Tesla T4")
TWO_A100 = gpus(2, (8, 0), "NVIDIA A100")


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate({"model": "m", "dataset": "d", **fields})


def refusal(wanted: Recipe, *machines: Machine) -> Failure:
    with pytest.raises(InputError) as refused:
        check_machines(wanted, machines)
    return refused.value.failure


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16", "fp32"])
def test_where_no_worker_is_known_nothing_is_refused(precision: str) -> None:
    check_machines(recipe(precision=precision, parallel={"processes": 64}), [])


@pytest.mark.parametrize("machine", [OLD_CPU, T4])
def test_bf16_is_refused_where_no_device_computes_in_it(machine: Machine) -> None:
    failure = refusal(recipe(precision="bf16"), machine)
    assert (failure.reason, failure.param) == (FailureReason.PRECISION_UNAVAILABLE, "precision")
    assert 'got "bf16"' in failure.message
    assert failure.message.endswith(f"the workers have: {machine.describe()}")
    check_machines(recipe(precision="fp32"), [machine])
    check_machines(recipe(precision="auto"), [machine])


@pytest.mark.parametrize("machine", [NEW_CPU, TWO_A100])
def test_one_machine_that_can_is_enough(machine: Machine) -> None:
    check_machines(recipe(precision="bf16"), [OLD_CPU, T4, machine])


def test_fp16_is_had_everywhere_but_with_deepspeed_on_a_cpu() -> None:
    for machine in (OLD_CPU, NEW_CPU, T4, TWO_A100):
        check_machines(recipe(precision="fp16"), [machine])
    with_deepspeed = recipe(precision="fp16", parallel={"engine": "deepspeed"})
    check_machines(with_deepspeed, [T4])
    assert refusal(with_deepspeed, OLD_CPU, NEW_CPU).param == "precision"


def test_more_processes_than_any_machine_has_gpus_are_refused() -> None:
    failure = refusal(recipe(parallel={"processes": 3}), T4, TWO_A100)
    assert (failure.reason, failure.param) == (FailureReason.DEVICES_UNAVAILABLE, "parallel.processes")
    assert "1 x Tesla T4; 2 x NVIDIA A100" in failure.message
    check_machines(recipe(parallel={"processes": 2}), [T4, TWO_A100])


def test_a_machine_without_gpus_runs_as_many_processes_as_one_likes() -> None:
    check_machines(recipe(parallel={"processes": 8}), [OLD_CPU])


def test_every_process_wants_a_gpu_that_computes_in_bf16() -> None:
    mixed = Machine(gpus=[*T4.gpus, *TWO_A100.gpus], cores=8, cpu_bf16=True)
    check_machines(recipe(precision="bf16", parallel={"processes": 2}), [mixed])
    assert refusal(recipe(precision="bf16", parallel={"processes": 3}), mixed).param == "precision"


@pytest.mark.parametrize("machines", [[], [TWO_A100, TWO_A100]])
def test_several_machines_are_refused_with_the_way_to_do_it_by_hand(machines: list[Machine]) -> None:
    failure = refusal(recipe(parallel={"nodes": 2, "processes": 4}), *machines)
    assert (failure.reason, failure.param) == (FailureReason.DEVICES_UNAVAILABLE, "parallel.nodes")
    assert "torchrun --nnodes=2 --nproc-per-node=4 --rdzv-backend=c10d" in failure.message


def test_fp16_where_all_are_cpus_is_unwise() -> None:
    assert "20 to 30 times slower" in unwise(recipe(precision="fp16"), [OLD_CPU, NEW_CPU])[0]
    assert unwise(recipe(precision="fp16"), [OLD_CPU, T4]) == []
    assert unwise(recipe(precision="fp16"), []) == []
    assert unwise(recipe(precision="bf16"), [NEW_CPU]) == []
