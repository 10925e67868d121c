from typing import Any

import pytest

from contract.failure import Failure, FailureCode, InputError
from contract.machine import Gpu, Machine, check_machines, machine_warnings, usable_devices
from contract.recipe import Recipe


def gpus(count: int, capability: tuple[int, int], name: str) -> Machine:
    each = Gpu(uuid="GPU-1", name=name, memory_bytes=2**34, compute_capability=capability)
    return Machine(gpus=[each] * count, cores=8, cpu_bf16=True)


OLD_CPU = Machine(gpus=[], cores=4, cpu_bf16=False)
NEW_CPU = Machine(gpus=[], cores=4, cpu_bf16=True)
T4 = gpus(1, (7, 5), "Tesla T4")
TWO_A100 = gpus(2, (8, 0), "NVIDIA A100")
L40S = gpus(1, (8, 9), "NVIDIA L40S")
H200 = gpus(1, (9, 0), "NVIDIA H200")


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate({"model": "m", "dataset": "d", **fields})


def refusal(wanted: Recipe, *machines: Machine) -> Failure:
    with pytest.raises(InputError) as refused:
        check_machines(wanted, machines)
    return refused.value.failure


@pytest.mark.parametrize("precision", ["auto", "bf16", "fp16", "fp32", "fp8"])
def test_where_no_worker_is_known_nothing_is_refused(precision: str) -> None:
    check_machines(recipe(precision=precision, resources={"gpus": 64}), [])


@pytest.mark.parametrize("machine", [OLD_CPU, T4])
def test_bf16_without_a_bf16_device_is_refused(machine: Machine) -> None:
    failure = refusal(recipe(precision="bf16"), machine)
    assert (failure.code, failure.param) == (FailureCode.PRECISION_UNAVAILABLE, "precision")
    assert 'got "bf16"' in failure.message
    assert failure.message.endswith(f"the workers have: {machine.describe()}")
    check_machines(recipe(precision="fp32"), [machine])
    check_machines(recipe(precision="auto"), [machine])


@pytest.mark.parametrize("machine", [NEW_CPU, TWO_A100])
def test_one_machine_that_can_is_enough(machine: Machine) -> None:
    check_machines(recipe(precision="bf16"), [OLD_CPU, T4, machine])


def test_fp16_works_except_deepspeed_on_cpu() -> None:
    for machine in (OLD_CPU, NEW_CPU, T4, TWO_A100):
        check_machines(recipe(precision="fp16"), [machine])
    with_deepspeed = recipe(precision="fp16", parallel={"engine": "deepspeed"})
    check_machines(with_deepspeed, [T4])
    assert refusal(with_deepspeed, OLD_CPU, NEW_CPU).param == "precision"


@pytest.mark.parametrize("machine", [OLD_CPU, NEW_CPU, T4, TWO_A100])
def test_fp8_without_such_a_gpu_is_refused(machine: Machine) -> None:
    failure = refusal(recipe(precision="fp8"), machine)
    assert (failure.code, failure.param) == (FailureCode.PRECISION_UNAVAILABLE, "precision")
    assert 'got "fp8"' in failure.message
    assert 'capability 8.9 on (Ada, Hopper and newer), and no CPU; use "bf16" or "auto"' in failure.message
    for able in (L40S, H200):
        check_machines(recipe(precision="fp8"), [machine, able])
        assert usable_devices(recipe(precision="fp8"), able) == {0}
    mixed = Machine(gpus=[*TWO_A100.gpus, *H200.gpus], cores=8, cpu_bf16=True)
    assert usable_devices(recipe(precision="fp8"), mixed) == {2}


def test_more_ranks_than_gpus_are_refused() -> None:
    failure = refusal(recipe(resources={"gpus": 3}), T4, TWO_A100)
    assert (failure.code, failure.param) == (FailureCode.DEVICES_UNAVAILABLE, "resources.gpus")
    assert "1 x Tesla T4; 2 x NVIDIA A100" in failure.message
    check_machines(recipe(resources={"gpus": 2}), [T4, TWO_A100])


def test_cpu_machine_runs_any_number_of_ranks() -> None:
    check_machines(recipe(resources={"gpus": 8}), [OLD_CPU])


def test_every_rank_needs_a_bf16_gpu() -> None:
    mixed = Machine(gpus=[*T4.gpus, *TWO_A100.gpus], cores=8, cpu_bf16=True)
    check_machines(recipe(precision="bf16", resources={"gpus": 2}), [mixed])
    assert refusal(recipe(precision="bf16", resources={"gpus": 3}), mixed).param == "precision"


def test_more_nodes_than_machines_are_refused() -> None:
    two_machines = recipe(resources={"nodes": 2, "gpus": 2})
    failure = refusal(two_machines, T4, TWO_A100)
    assert (failure.code, failure.param) == (FailureCode.DEVICES_UNAVAILABLE, "resources.nodes")
    assert "got 2, each on a machine of its own, and 1 can train this" in failure.message
    check_machines(two_machines, [T4, TWO_A100, TWO_A100])
    check_machines(two_machines, [])


def test_job_uses_only_gpus_that_can_train_it() -> None:
    mixed = Machine(gpus=[*T4.gpus, *TWO_A100.gpus], cores=8, cpu_bf16=True)
    assert usable_devices(recipe(precision="bf16"), mixed) == {1, 2}
    assert usable_devices(recipe(precision="fp32"), mixed) == {0, 1, 2}
    assert usable_devices(recipe(resources={"gpus": 4}), mixed) == frozenset()


def test_cpu_slots_stand_in_for_gpus() -> None:
    machine = OLD_CPU.model_copy(update={"slots": 2})
    assert (machine.devices, usable_devices(recipe(), machine)) == (2, frozenset({0, 1}))
    assert [machine.devices_needed(recipe(resources={"gpus": gpus})) for gpus in (1, 2, 8)] == [1, 2, 2]
    assert TWO_A100.devices_needed(recipe(resources={"gpus": 2})) == 2


def test_fp16_where_all_are_cpus_is_unwise() -> None:
    assert "20 to 30 times slower" in machine_warnings(recipe(precision="fp16"), [OLD_CPU, NEW_CPU])[0]
    assert machine_warnings(recipe(precision="fp16"), [OLD_CPU, T4]) == []
    assert machine_warnings(recipe(precision="fp16"), []) == []
    assert machine_warnings(recipe(precision="bf16"), [NEW_CPU]) == []


def test_job_gets_one_instance_or_whole_gpus() -> None:
    divided = [gpu.model_copy(update={"uuid": f"MIG-{n}"}) for n, gpu in enumerate(TWO_A100.gpus)]
    machine = Machine(gpus=[*divided, *TWO_A100.gpus], cores=8, cpu_bf16=True)
    assert usable_devices(recipe(), machine) == {0, 1, 2, 3}
    assert usable_devices(recipe(resources={"gpus": 2}), machine) == {2, 3}
    assert refusal(recipe(resources={"gpus": 3}), machine).param == "resources.gpus"
