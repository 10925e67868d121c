"""The recipe: the JSON that a user writes. Two fields are required; everything else has a default that trains well."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from contract import patterns
from contract.dataset_format import DatasetField, DatasetFormat
from contract.formatting import format_value
from contract.method import LEARNING_RATES, Method, MethodType, method_from_type
from contract.section import Section, Text
from contract.tracking import Tracking

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]

_MAX_EXPRESSION = 200


CHANGES_BASE = frozenset({"pissa", "pissa_niter_4", "pissa_niter_16", "olora"})
"""Initialisations that take an adapter's first values out of the base's weights."""


class Conflict(ValueError):
    """A contradiction between two fields of a recipe. `param` is the dotted path of the field to change."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class DatasetSource(Section):
    path: Text
    """A file of examples: the id of a dataset, or a path on the server, absolute or relative to one of its allowed
    folders."""
    format: Literal["auto"] | DatasetFormat = "auto"
    """Format of the rows; "auto" detects it from the first row's fields."""
    columns: Annotated[dict[DatasetField, Text], Field(min_length=1)] | None = None
    """The file's own names for fields of the format, where they differ: {"instruction": "question"}."""
    chat_template: Literal["chatml", "alpaca", "plain"] | None = None
    """Chat template to use instead of the model's own, for models that have none."""
    sha256: Annotated[str, StringConstraints(pattern=patterns.SHA256)] | None = None
    """SHA-256 of the file. Filled in when the job is accepted; a file that has changed since is refused."""
    filename: Text | None = None
    """Original name of the file, if its path has another, as an upload's does; CSV and plain text are recognised by it.
    Filled in when the job is accepted."""


def dataset_from_path(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


Rank = Annotated[int, Field(ge=1, le=4096)]
Alpha = Annotated[float, Field(gt=0)]
ModuleName = Annotated[str, StringConstraints(pattern=patterns.MODULE)]


class Adapter(Section):
    """LoRA (Hu et al. 2021, arXiv:2106.09685): each adapted weight W becomes W + (alpha / r) B A."""

    r: Rank = 16
    """Rank of A (r x in) and B (out x r)."""
    alpha: Alpha = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | Text | Annotated[list[Text], Field(min_length=1, fail_fast=True)] = (
        "all-linear"
    )
    """Names of linear modules to adapt, such as ["q_proj", "v_proj"]. "all-linear" means every one except the output
    head, routed experts and their routers, and a model's parts for images and sound. Any other string is a regular
    expression for complete names, such as ".*layers\\.[01]\\..*proj"."""
    experts: bool | Literal["auto"] = "auto"
    """Whether to adapt the routed experts of a mixture of experts too, each by its own A and B. "auto" adapts them only
    if target_modules matches nothing else, such as ["experts.down_proj"]."""

    bias: Literal["none", "all", "lora_only"] = "none"
    """Biases to train as well: all of the model's, or those of adapted modules. They change the base, and need fp32."""
    rslora: bool = False
    """Whether to scale by alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023, arXiv:2312.03732)."""
    dora: bool = False
    """Whether to train each weight's magnitude separately from its direction (Liu et al. 2024, arXiv:2402.09353)."""
    init: Literal["default", "gaussian", "pissa", "pissa_niter_4", "pissa_niter_16", "olora", "loftq"] = "default"
    """Initial values of A and B. "pissa" (Meng et al. 2024, arXiv:2404.02948; "_niter_n" is its fast, approximate SVD)
    and "olora" (Büyükakyüz 2024, arXiv:2406.01775) start from the principal parts of the weights. The saved adapter
    fits the unchanged base and has twice the rank. "loftq" (Li et al. 2023, arXiv:2310.08659) starts from the error of
    quantising a base to 4 bits."""
    modules_to_save: list[ModuleName] = Field(default=[])
    """Modules to train whole and save with the adapter, such as ["lm_head", "embed_tokens"]."""
    rank_pattern: dict[ModuleName, Rank] = Field(default={})
    """r for some of the adapted modules: {"q_proj": 32}."""
    alpha_pattern: dict[ModuleName, Alpha] = Field(default={})
    """alpha for some of the adapted modules: {"q_proj": 64}."""
    start_from: Text | None = None
    """An earlier job whose adapter is trained further: its id, or "ID/checkpoint-STEP" for one of its checkpoints. The
    trainer itself takes an adapter's folder. The shape is that adapter's, so only dropout may be given besides."""

    @model_validator(mode="after")
    def _check_start_from(self) -> Self:
        if self.start_from is not None:
            own = {"start_from", "dropout"}
            for name, field in type(self).model_fields.items():
                if name not in own and getattr(self, name) != field.get_default(call_default_factory=True):
                    raise ValueError(f"start_from takes the earlier adapter's {name}; leave {name} out")
        return self

    @field_validator("target_modules")
    @classmethod
    def _regular_expression(cls, given: str | list[str]) -> str | list[str]:
        if isinstance(given, str):
            if len(given) > _MAX_EXPRESSION:
                raise ValueError(f"a regular expression of {len(given)} characters; {_MAX_EXPRESSION} at most")
            try:
                re.compile(given)
            # OverflowError: a huge count. Warning: an ambiguous set, if warnings are errors.
            except (re.error, OverflowError, RecursionError, Warning) as error:
                raise ValueError(f"got {format_value(given)}, which is not a regular expression: {error}") from error
        return given


class Batch(Section):
    micro_batch_size: Literal["auto"] | Count = 8
    """Examples in one forward and backward pass on one device. They are packed into one row without padding. "auto" is
    as many as fit into the device's memory; it needs `effective_batch_size`, so that the steps are the same on every
    device."""
    gradient_accumulation_steps: Count | None = None
    """Micro-batches in one optimizer step; null is 1, or as many as `effective_batch_size` needs."""
    effective_batch_size: Count | None = None
    """Examples of one optimizer step on all devices together, however many there are; null is micro_batch_size x
    gradient_accumulation_steps on each."""
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] = 2048
    """Maximum tokens of an example; a longer one is cut at its end."""

    @model_validator(mode="after")
    def _check_batch_size(self) -> Self:
        if self.effective_batch_size is not None and self.gradient_accumulation_steps is not None:
            raise ValueError(
                "give gradient_accumulation_steps or effective_batch_size, not both: each follows from the other"
            )
        if self.micro_batch_size == "auto" and self.effective_batch_size is None:
            raise ValueError(
                'micro_batch_size "auto" needs effective_batch_size, the examples of one optimizer step on all devices'
            )
        return self


class Optimizer(Section):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    type: Literal["adamw", "adamw_8bit"] = "adamw"
    """Kind of optimizer; "adamw_8bit" keeps its moments in 8 bits (Dettmers et al. 2022, arXiv:2110.02861)."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = LEARNING_RATES["sft"]
    """Highest learning rate; 5e-6 if it is not given and the method is another than "sft"."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Maximum norm of the gradients, which are clipped to it; null does not clip."""
    lora_plus_ratio: Annotated[float, Field(ge=1, le=1000)] | None = None
    """Learning rate of B as a multiple of learning_rate (LoRA+, Hayou et al. 2024, arXiv:2402.12354); null is 1."""


class Schedule(Section):
    type: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the learning rate's fall to zero after the warm-up."""
    epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Number of passes over the examples; null is 3, or as many as max_steps needs."""
    max_steps: Count | None = None
    """Optimizer steps of the run. If epochs are given too, the run ends at whichever comes first."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Fraction of all steps over which the learning rate rises from zero; 0.03 if warmup_steps is not given either."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_epochs(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("epochs") is None and given.get("max_steps") is None:
            return {**given, "epochs": 3}
        return given

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup_ratio is not None and self.warmup_steps is not None:
            raise ValueError("give warmup_ratio or warmup_steps, not both")
        return self


class Evaluation(Section):
    fraction: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Fraction of the examples that is held out of training; 0 holds none out."""
    dataset: Annotated[
        DatasetSource | None, BeforeValidator(dataset_from_path, json_schema_input_type=str | DatasetSource | None)
    ] = None
    """A separate evaluation dataset, given like `dataset`; use it instead of `fraction`. It is rendered with the
    training dataset's chat template."""
    every_steps: Count | None = None
    """Optimizer steps between evaluations; null evaluates at the end of each epoch. The start and the end are always
    evaluated."""
    patience: Count | None = None
    """Number of evaluations in a row that are no better than an earlier one, after which the run ends; null never ends
    it."""
    samples: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of held-out prompts to answer at each evaluation, for people to read."""
    sample_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    """Maximum tokens of an answer."""

    @property
    def holds_out(self) -> bool:
        return self.fraction > 0 or self.dataset is not None

    @model_validator(mode="after")
    def _check_held_out(self) -> Self:
        if self.fraction and self.dataset is not None:
            raise ValueError("give fraction or dataset, not both: either holds out what is evaluated")
        if self.dataset is not None and self.dataset.chat_template is not None:
            raise ValueError("dataset is rendered with the chat_template of the recipe's dataset; give it only there")
        for name in ("patience", "samples"):
            if getattr(self, name) and not self.holds_out:
                raise ValueError(f"{name} needs held-out examples: set fraction above 0, such as 0.1, or give dataset")
        return self


class Parallel(Section):
    engine: Literal["ddp", "deepspeed", "fsdp"] = "ddp"
    """How the ranks share the work. "ddp": each holds the whole model (DistributedDataParallel). "deepspeed": ZeRO
    (Rajbhandari et al. 2020, arXiv:1910.02054) shards what zero_stage says. "fsdp": each holds a shard of every weight
    (FullyShardedDataParallel). All give the same losses."""
    zero_stage: Literal[0, 1, 2, 3] | None = None
    """What DeepSpeed shards among the ranks: 1 the optimizer's state, 2 the gradients too, 3 the weights too; null is
    2."""
    offload_optimizer: bool = False
    """Whether to keep DeepSpeed's optimizer in the machine's memory; from zero_stage 1 on."""
    offload_parameters: bool = False
    """Whether to keep DeepSpeed's weights in the machine's memory until a layer needs them; only in zero_stage 3."""

    @model_validator(mode="after")
    def _check_deepspeed(self) -> Self:
        if self.engine != "deepspeed":
            for name in ("zero_stage", "offload_optimizer", "offload_parameters"):
                if getattr(self, name) not in (None, False):
                    raise ValueError(f'{name} is DeepSpeed\'s: set engine to "deepspeed"')
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer needs zero_stage 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError("offload_parameters needs zero_stage 3")
        return self


class Resources(Section):
    gpus: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs on each machine, one rank per GPU; the ranks share every optimizer step. Without batch.effective_batch_size
    a step takes micro_batch_size x gradient_accumulation_steps examples on each. On a machine without GPUs, its CPU
    slots are used instead, as many as it has."""
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of machines, each with that many GPUs. The job waits until all are free at once."""
    profile: Annotated[str, StringConstraints(pattern=patterns.PROFILE)] | None = None
    """Name of a profile, by which an operator describes a part of a cluster. The cluster's queue then finds the
    machines; null trains on the workers' own."""
    allow_sharing: bool = False
    """Whether another job that allows it too may use the same devices at the same time."""

    @model_validator(mode="after")
    def _check_profile(self) -> Self:
        if self.profile is not None and self.allow_sharing:
            raise ValueError("profile leaves the devices to a cluster, which shares none: leave out allow_sharing")
        return self


class Scheduling(Section):
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """Priority in the queue: a waiting job with a higher one starts first."""
    preemptible: bool = False
    """Whether a waiting job with a higher priority may take this job's devices. This one saves, returns to the queue
    and continues later."""


class Checkpointing(Section):
    every_steps: Count | None = None
    """Optimizer steps between saved adapters."""
    every_epochs: Count | None = None
    """Epochs between saved adapters."""
    every_minutes: Annotated[float, Field(gt=0)] | None = None
    """Maximum minutes between saved adapters. If none of the three is given, only the final adapter and those with a
    new best evaluation are saved."""
    keep_adapters: Count | None = None
    """Number of saved adapters to keep, the newest ones with the final one; null keeps all. The one with the lowest
    evaluation loss is always kept."""
    training_checkpoint_minutes: Annotated[float, Field(gt=0)] = 10
    """Maximum minutes between training checkpoints, from which a run continues: at most this much work is ever lost."""
    keep_training_checkpoints: Count = 2
    """Number of training checkpoints to keep, the newest ones."""


class Recipe(Section):
    model: Text
    """The base model: a name in the server's models folder, an allowed path, or a hub id such as "org/name"."""
    dataset: Annotated[DatasetSource, BeforeValidator(dataset_from_path, json_schema_input_type=str | DatasetSource)]
    """The training examples: the id of a dataset, a path, or an object with more settings."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=patterns.TEXT)] | None = None
    """A name for people; it need not be unique."""
    method: Annotated[Method, BeforeValidator(method_from_type, json_schema_input_type=MethodType | Method)] = Method()
    """How the model learns from the examples: the name of a method, such as "dpo", or an object with its options."""
    adapter: Adapter = Adapter()
    batch: Batch = Batch()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    precision: Literal["auto", "bf16", "fp16", "fp32", "fp8"] = "auto"
    """Number format. bf16, fp16: base weights and arithmetic in that format, adapter and optimizer in fp32. fp16 scales
    the loss (GradScaler) and skips the steps whose gradients overflow. fp8: as bf16, with the products of the frozen
    linear layers in FP8 (arXiv:2209.05433), on GPUs from compute capability 8.9 on. "auto" is bf16 if the device
    computes in it, otherwise fp32."""
    base_bits: Literal[4, 8] | None = None
    """Bits of the base weights: 4 (NF4, QLoRA: Dettmers et al. 2023, arXiv:2305.14314) or 8 (LLM.int8(),
    arXiv:2208.07339); null keeps them in `precision`."""
    gradient_checkpointing: bool = False
    """Whether to recompute each layer's activations in the backward pass: less memory, a third more work."""
    torch_compile: bool = False
    """Whether to compile the layers in the first step, which takes seconds to minutes; the plan reports how long
    it took before. Later steps may be faster. It needs a C++ compiler on the worker's machine."""
    neftune_alpha: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Noise on the embeddings in training (NEFTune: Jain et al. 2023, arXiv:2310.05914); the paper uses 5."""
    resources: Resources = Resources()
    parallel: Parallel = Parallel()
    evaluation: Evaluation = Evaluation()
    checkpointing: Checkpointing = Checkpointing()
    scheduling: Scheduling = Scheduling()
    tracking: Tracking = Tracking()
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 42

    @model_validator(mode="before")
    @classmethod
    def _default_learning_rate(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        method, optimizer = given.get("method"), given.get("optimizer", {})
        name = method.get("type") if isinstance(method, dict) else method
        rate = LEARNING_RATES.get(cast(MethodType, name)) if isinstance(name, str) else None
        if rate is None or not isinstance(optimizer, dict):
            return given  # the recipe is refused for it, or has no method
        return {**given, "optimizer": {"learning_rate": rate, **optimizer}}

    @model_validator(mode="after")
    def _check_conflicts(self) -> Self:
        for param, message in (
            *self._method_conflicts(),
            *self._engine_conflicts(),
            *self._compile_conflicts(),
            *self._quantisation_conflicts(),
            *self._fp8_conflicts(),
        ):
            raise Conflict(param, message)
        return self

    def _method_conflicts(self) -> Iterator[tuple[str, str]]:
        ranks = self.resources.gpus * self.resources.nodes
        batch = self.batch
        examples = batch.effective_batch_size
        if examples is None and batch.micro_batch_size != "auto":
            examples = batch.micro_batch_size * (batch.gradient_accumulation_steps or 1) * ranks
        if self.method.type == "kto" and examples == 1:
            yield (
                "batch.effective_batch_size",
                'a step takes 1 example, and method "kto" compares those of a step with each other: give 2 or more, '
                "such as 16",
            )

    def _engine_conflicts(self) -> Iterator[tuple[str, str]]:
        engine = self.parallel.engine
        if engine == "fsdp" and self.precision == "fp16":
            yield "precision", 'got "fp16"; parallel.engine "fsdp" takes "bf16" or "fp32", or use engine "ddp"'
        if engine == "deepspeed" and self.precision == "fp16" and self.parallel.zero_stage == 0:
            yield "precision", 'got "fp16"; with DeepSpeed it needs a parallel.zero_stage of 1, 2 or 3'
        if self.parallel.zero_stage == 3 and self.adapter.init in CHANGES_BASE:
            yield (
                "adapter.init",
                f'got "{self.adapter.init}", which starts from whole weights; zero_stage 3 shards '
                'them as it loads them: use another stage, or parallel.engine "fsdp"',
            )
        if self.parallel.zero_stage == 3 and self.adapter.bias != "none":
            yield (
                "adapter.bias",
                f'got "{self.adapter.bias}"; zero_stage 3 shards the biases as it loads them: use '
                'another stage, or parallel.engine "fsdp"',
            )
        if self.parallel.zero_stage == 3 and self.adapter.experts is True:
            yield (
                "adapter.experts",
                "got true; zero_stage 3 divides the LoRA of routed experts, which it cannot gather: use another stage, "
                'or parallel.engine "fsdp"',
            )
        if self.optimizer.type == "adamw_8bit" and engine != "ddp":
            yield "optimizer.type", f'got "adamw_8bit"; parallel.engine "{engine}" takes "adamw", or use engine "ddp"'

    def _compile_conflicts(self) -> Iterator[tuple[str, str]]:
        engine, bits = self.parallel.engine, self.base_bits
        if self.torch_compile and engine != "ddp":
            yield (
                "torch_compile",
                f'got true; parallel.engine "{engine}" does not support compiled layers: use engine "ddp"',
            )
        if self.torch_compile and bits is not None:
            yield "torch_compile", f"got true; a base in {bits} bits is not compiled: leave base_bits out"
        if self.torch_compile and self.gradient_checkpointing:
            yield "torch_compile", "got true; it excludes gradient_checkpointing: leave one of them out"

    def _quantisation_conflicts(self) -> Iterator[tuple[str, str]]:
        engine, bits = self.parallel.engine, self.base_bits
        if self.adapter.init == "loftq" and bits != 4:
            yield "adapter.init", 'got "loftq", which starts from the error of a base in 4 bits: set base_bits to 4'
        if bits is not None:
            if engine == "fsdp" or self.parallel.zero_stage == 3:
                yield (
                    "base_bits",
                    f"got {bits}; such weights cannot be sharded: use parallel.engine "
                    '"ddp", or "deepspeed" with a zero_stage below 3',
                )
            if self.adapter.init in CHANGES_BASE:
                yield "adapter.init", f'got "{self.adapter.init}", which changes the base; base_bits keeps it as it is'
            if self.adapter.bias != "none":
                yield "adapter.bias", f'got "{self.adapter.bias}"; with base_bits no bias of the base can be trained'

    def _fp8_conflicts(self) -> Iterator[tuple[str, str]]:
        if self.precision != "fp8":
            return
        if self.parallel.engine == "fsdp" or self.parallel.zero_stage == 3:
            yield (
                "precision",
                'got "fp8"; such weights cannot be sharded: use parallel.engine "ddp", or "deepspeed" with a '
                'zero_stage below 3, or precision "bf16"',
            )
        if self.base_bits is not None:
            yield "base_bits", f'got {self.base_bits}; precision "fp8" has its own weights: leave one of them out'
        if self.torch_compile:
            yield "torch_compile", 'got true; with precision "fp8" no layer is compiled: leave one of them out'
        if self.adapter.dora:
            yield "adapter.dora", 'got true, which computes with whole weights; use precision "bf16", or leave dora out'
        if self.adapter.bias != "none":
            yield "adapter.bias", f'got "{self.adapter.bias}", which changes the base; use precision "fp32"'
