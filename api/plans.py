"""Plans: what a recipe takes, before anybody pays for it."""

from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from api.auth.who import Who
from api.context import Context, Services
from api.http.body import described, read_body
from api.http.idempotency import Keyed, idempotent
from api.jobs.submission import lengths_of, resolved
from contract.formatting import sentence
from contract.model.trained_modules import TrainedModules, trained_modules
from contract.recipe import Recipe
from contract.recipe_errors import parse_recipe
from estimate.adapter import skipped_modules
from estimate.plan import DeviceEstimate, LocalModel, RunPlan, plan_run
from estimate.work import TrainingWork
from store.access.principal import Principal
from store.jobs import jobs
from store.jobs.packing import ReportedPacking, reported_packing
from store.jobs.throughput import Throughput, throughput
from store.scheduling import workers


class LeftOut(BaseModel):
    """Linear modules of the base that target_modules matches, and that get no adapter."""

    reason: str
    """For people: a sentence."""
    names: list[str]
    """Last parts of the modules' names."""
    parameters: int
    """Parameters of the base in these modules."""


class ParametersOut(BaseModel):
    total: int
    """Parameters of the base model and of what is trained beside it."""
    trainable: int
    by_module: list[TrainedModules]
    left_out: list[LeftOut]


class BaseOut(BaseModel):
    """A base whose files are quantised."""

    stored_as: str
    """How its files are quantised, for people."""
    loaded_as: Literal["as_stored", "dequantised"]
    file_bytes: int
    """Bytes of the weights in the files."""
    loaded_bytes: int
    """Bytes of the weights in training: those that are not in 4 or 8 bits in bf16, on one device."""


class WorkOut(BaseModel):
    train_examples: int
    effective_batch_size: int
    """Examples of one optimizer step, on all devices."""
    steps: int
    tokens: int | None
    """Tokens processed over the whole run, repeats included; of pairs, those of the longer answer twice."""
    reference_tokens: int | None
    """Tokens of the pass without gradients before the first step, which "dpo" and "kto" make; 0 without one."""


class MemoryOut(BaseModel):
    """Most bytes on each device."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    communication_buffers: int
    """Buffers in which ranks exchange gradients and weights."""
    overhead: int
    """Overhead of the process: its libraries, and what the allocator keeps."""
    total: int
    """Sum of the parts. If a step has one pass on one device, gradients replace activations, and only the larger of
    both counts."""


class DevicePlan(BaseModel):
    device: str
    """The GPU's name, or "CPU"."""
    devices: int
    """Number of devices that the job takes, on all machines together."""
    precision: str
    memory: MemoryOut
    available: int | None
    """Bytes of the device; for a CPU, a rank's part of the machine's memory."""
    fits: bool | None
    """Null if it is too close to say: a measured peak is within a quarter of its estimate."""
    suggestions: list[dict[str, Any]]
    """Changes to the recipe, if it does not fit; with any one of them it fits."""
    tokens_per_second: float | None
    """Speed that was measured on similar jobs on such devices."""
    cold_start_seconds: float | None
    """Extra time of their first step, in which torch_compile compiles."""
    eta_seconds: float | None
    """Time of training at that speed with the cold start, without loading, evaluations and saving."""
    measured_jobs: int
    """Number of past jobs that the speed was measured on."""


class DiskOut(BaseModel):
    """Bytes on disk."""

    adapter: int
    """Bytes of one adapter."""
    adapters: int
    """Bytes of all checkpoints and the final adapter."""
    training_checkpoints: int
    """Bytes of training checkpoints; none is left when the run is done."""
    total: int
    """Sum of adapters and training checkpoints."""
    merged: int
    """Bytes of an export of the merged model, if one is made."""


class PlanOut(BaseModel):
    parameters: ParametersOut | None
    base: BaseOut | None
    """How a base is loaded whose files are quantised; null for any other."""
    work: WorkOut
    devices: list[DevicePlan]
    """One entry per kind of device of the workers' machines; empty if the memory is not known."""
    disk: DiskOut | None
    packed: bool | None
    """Whether the latest job of the same model took the documents of a micro-batch together, and not one by one."""
    packing: str | None
    """Why it did."""
    expected_seconds: float | None
    """Time that the latest jobs of the same model took for as many examples, on any device."""
    unknown: dict[str, str]
    """Reason for each part that is null or uncertain."""
    warnings: list[str]
    """Fields of the recipe that are unwise, or that have less effect than they say."""


router = APIRouter(tags=["plans"])


@router.post("/plans", openapi_extra=described(Recipe))
def create_plan(services: Context, who: Who, once: Keyed, body: Annotated[bytes, Depends(read_body)]) -> PlanOut:
    """What a recipe would take, without training it: parameters, steps, tokens, memory on each kind of device and what
    would make it fit, disk, and time. What cannot be known is null, and `unknown` says why."""
    recipe = parse_recipe(body)
    with idempotent(services, once) as turn:
        planned = plan(services, who, recipe)
        with services.sessions.begin() as session:
            turn.complete(session, "plan")
        return planned


def plan(services: Services, who: Principal, recipe: Recipe) -> PlanOut:
    """Raises InputError for what POST /jobs refuses, except that it does not fit."""
    with services.sessions.begin() as session:
        machines = workers.list_machines(session)
    with resolved(services, who, recipe, machines) as submission:
        base, rows = submission.base, submission.training.count
        made = plan_run(submission.recipe, rows, submission.machines, base, lengths_of(services, submission))
        with services.sessions.begin() as session:
            packing = reported_packing(session, submission.recipe.model)
            expected = jobs.expected_seconds(session, submission.recipe, submission.workload.examples)
            speeds = [throughput(session, submission.recipe, on.device, on.kind.precision) for on in made.devices]
        known = None if isinstance(base, str) else base
        return plan_out(made, known, PastJobs(speeds, expected, packing), submission.warnings)


class PastJobs(NamedTuple):
    """What jobs with the same model have reported."""

    speeds: list[Throughput | None]
    """Of the plan's devices, in their order."""
    expected_seconds: float | None
    packing: ReportedPacking | None


def plan_out(
    plan: RunPlan,
    base: LocalModel | None,
    past: PastJobs,
    warnings: list[str],
) -> PlanOut:
    work = plan.work
    unknown = dict(plan.unknown)
    if any(speed is None for speed in past.speeds):
        unknown["eta_seconds"] = unknown["cold_start_seconds"] = "no job like this one has ended on such a device"
    packing = past.packing
    if packing is None:
        unknown["packing"] = "the trainer checks whether documents can be packed, and its started event will say"
    return PlanOut(
        parameters=_parameters(base) if base else None,
        base=BaseOut(**vars(plan.base)) if plan.base else None,
        work=WorkOut(
            train_examples=work.train_examples,
            effective_batch_size=work.effective_batch_size,
            steps=work.steps,
            tokens=work.tokens,
            reference_tokens=work.reference_tokens,
        ),
        devices=[_device(on, work, speed) for on, speed in zip(plan.devices, past.speeds, strict=True)],
        disk=DiskOut(**vars(plan.disk), total=plan.disk.total) if plan.disk else None,
        packed=packing.packed if packing else None,
        packing=packing.because if packing else None,
        expected_seconds=past.expected_seconds,
        unknown=unknown,
        warnings=warnings,
    )


def _parameters(base: LocalModel) -> ParametersOut:
    return ParametersOut(
        total=base.parameters,
        trainable=base.trained.parameters,
        by_module=trained_modules({name: sum(sizes) for name, sizes in base.trained.tensors.items()}, base.shapes),
        left_out=[
            LeftOut(reason=sentence(why), names=sorted(names), parameters=numbers)
            for why, (names, numbers) in skipped_modules(base.trained, base.shapes).items()
        ],
    )


def _device(on: DeviceEstimate, work: TrainingWork, speed: Throughput | None) -> DevicePlan:
    parts = {name: size for name, size in vars(on.memory).items() if name in MemoryOut.model_fields}
    return DevicePlan(
        device=on.device,
        devices=on.ranks,
        precision=on.kind.precision,
        memory=MemoryOut(**parts, total=on.memory.total),
        available=on.kind.memory_bytes,
        fits=on.fits,
        suggestions=on.suggestions,
        tokens_per_second=speed.tokens_per_second if speed else None,
        cold_start_seconds=speed.cold_start_seconds if speed else None,
        eta_seconds=_eta_seconds(work, speed) if speed else None,
        measured_jobs=speed.jobs if speed else 0,
    )


def _eta_seconds(work: TrainingWork, speed: Throughput) -> float | None:
    """With a frozen base, a backward pass takes as long as a forward pass, so a pass without one takes half."""
    if work.tokens is None or work.reference_tokens is None:
        return None
    return speed.cold_start_seconds + (work.tokens + work.reference_tokens / 2) / speed.tokens_per_second
