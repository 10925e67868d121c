"""A reason is a sentence for people, wherever one is given; programs read a code."""

from datetime import UTC, datetime

import pytest

from api.plans import PastJobs, plan_out
from api.workers import worker_out
from contract.machine import ExternalProcess, Gpu, Machine
from contract.model import target_modules
from estimate.adapter import TrainedParameters
from estimate.plan import LocalModel, RunPlan
from estimate.work import TrainingWork
from store.models import Device, Worker
from tests.sentences import is_sentence
from tests.support.api import description

SKIPPED = ("EXPERT_SKIPPED", "ROUTER_SKIPPED", "MEDIA_SKIPPED", "PEFT_UNSUPPORTED", "NAME_TAKEN")
NOT_ADAPTED = [getattr(target_modules, name) for name in SKIPPED]
USES = [
    [("blender", 7, 2**33)],
    [("a", 7, None), ("b", None, 2**30)],
    [("a", 7, None)] * 5,
    [("the driver does not answer: GpuIsLost", None, None)],
]


def test_only_these_parts_of_an_answer_have_a_reason() -> None:
    schemas = description()["components"]["schemas"]
    # Of a queue: tests/store/scheduling/test_properties.py. Of a held-out example: tests/api/test_held_out.py. Of the
    # others: below.
    assert {name for name, schema in schemas.items() if "reason" in schema.get("properties", {})} == {
        "Queue",
        "DeviceOut",
        "HeldOut",
        "LeftOut",
    }


@pytest.mark.parametrize("uses", USES, ids=["one", "two", "many", "broken driver"])
def test_reason_of_a_busy_device_is_a_sentence(uses: list[tuple[str, int | None, int | None]]) -> None:
    found = [ExternalProcess(name=name, pid=pid, memory_bytes=memory).model_dump() for name, pid, memory in uses]
    gpu = Gpu(uuid="GPU-1", name="A100", memory_bytes=2**36, compute_capability=(8, 0))
    machine = Machine(gpus=[gpu], cores=8, cpu_bf16=False).model_dump(mode="json")
    worker = Worker(name="w", address="h", machine=machine, draining=False, seen_at=datetime.now(UTC))
    (device,) = worker_out(worker, True, [Device(worker="w", number=0, external_processes=found)], [], []).devices
    assert device.status == ("unavailable" if uses == USES[-1] else "busy")
    assert device.reason is not None
    assert is_sentence(device.reason)


@pytest.mark.parametrize("why", NOT_ADAPTED)
def test_reason_of_a_module_without_adapter_is_a_sentence(why: str) -> None:
    base = LocalModel({"m.weight": [2, 2]}, {}, TrainedParameters(skipped={"m": why}), None, "")
    plan = RunPlan(TrainingWork(1, 1, 1, None), None, [], {})
    parameters = plan_out(plan, base, PastJobs([], None, None), []).parameters
    assert parameters is not None
    assert [is_sentence(each.reason) for each in parameters.left_out] == [True]
