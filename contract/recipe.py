"""The recipe: the JSON that a user writes. Two fields are required, everything else has a default that trains well."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

from contract import patterns
from contract.quote import quote

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=patterns.TEXT)]

_LONGEST_EXPRESSION = 200

DatasetFormat = Literal[
    "messages", "sharegpt", "self_instruct", "alpaca", "prompt_completion", "belle", "chinese_vicuna", "text"
]
DatasetField = Literal[
    "messages",
    "conversations",
    "tools",
    "system",
    "instruction",
    "instances",
    "input",
    "output",
    "history",
    "target",
    "prompt",
    "completion",
    "text",
]


CHANGES_BASE = frozenset({"pissa", "pissa_niter_4", "pissa_niter_16", "olora"})
"""Ways for an adapter to start that take its first values out of the base's weights."""


class Conflict(ValueError):
    """Two fields of a recipe that cannot both be so; `param` is the dotted path of the one to change."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Dataset(Section):
    path: Text
    """A file of examples: the id of a dataset, or a path on the server, absolute or relative to one of its allowed
    folders."""
    format: Literal["auto"] | DatasetFormat = "auto"
    """How a row is written; "auto" tells it by the first row's fields."""
    columns: Annotated[dict[DatasetField, Text], Field(min_length=1)] | None = None
    """What the file calls the format's fields, where it has names of its own: {"instruction": "question"}."""
    chat_template: Literal["chatml", "alpaca", "plain"] | None = None
    """Writes the conversations in place of the model's own template; for models that have none."""
    sha256: Annotated[str, StringConstraints(pattern=patterns.SHA256)] | None = None
    """Digest of the file. Filled in when the job is taken; a file that has changed since is refused."""
    filename: Text | None = None
    """Name of the file where its path has another, as an upload's has: CSV and plain text are known by it. Filled in
    when the job is taken."""


def _dataset_from_path(value: Any) -> Any:
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
    """On the adapter's input."""
    target_modules: Literal["all-linear"] | Text | Annotated[list[Text], Field(min_length=1, fail_fast=True)] = (
        "all-linear"
    )
    """Names of linear modules to adapt, such as ["q_proj", "v_proj"]; "all-linear" is every one but the output head,
    routed experts and their routers, and the parts of a model for images and sound; any other string is a regular
    expression for whole names, such as ".*layers\\.[01]\\..*proj"."""

    bias: Literal["none", "all", "lora_only"] = "none"
    """Biases to train besides: all of the model's, or those of adapted modules. They change the base, and want fp32."""
    rslora: bool = False
    """Scales by alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023, arXiv:2312.03732)."""
    dora: bool = False
    """Trains each weight's magnitude apart from its direction (Liu et al. 2024, arXiv:2402.09353)."""
    init: Literal["default", "gaussian", "pissa", "pissa_niter_4", "pissa_niter_16", "olora", "loftq"] = "default"
    """How A and B start. "pissa" (Meng et al. 2024, arXiv:2404.02948; "_niter_n" is its fast, approximate SVD) and
    "olora" (Büyükakyüz 2024, arXiv:2406.01775) start from the weights' own principal parts. The saved adapter is made
    to fit the unchanged base, and has twice the rank. "loftq" (Li et al. 2023, arXiv:2310.08659) starts from what a
    base in 4 bits has lost."""
    modules_to_save: list[ModuleName] = Field(default=[])
    """Modules to train whole and to save with the adapter, such as ["lm_head", "embed_tokens"]."""
    rank_pattern: dict[ModuleName, Rank] = Field(default={})
    """r for some of the adapted modules: {"q_proj": 32}."""
    alpha_pattern: dict[ModuleName, Alpha] = Field(default={})
    """alpha for some of the adapted modules: {"q_proj": 64}."""
    start_from: Text | None = None
    """An earlier job whose adapter to train further: its id, or "ID/checkpoint-STEP" for one of its checkpoints. The
    trainer by itself takes an adapter's folder. The shape is that adapter's: give nothing else here but dropout."""

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
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
            if len(given) > _LONGEST_EXPRESSION:
                raise ValueError(f"a regular expression of {len(given)} characters; {_LONGEST_EXPRESSION} at most")
            try:
                re.compile(given)
            # OverflowError: a huge count. Warning: an ambiguous set, where warnings are errors.
            except (re.error, OverflowError, RecursionError, Warning) as error:
                raise ValueError(f"got {quote(given)}, which is no regular expression: {error}") from error
        return given


class Batch(Section):
    micro_batch_size: Literal["auto"] | Count = 8
    """Examples in one forward and backward pass on one device. They are packed in one row: nothing is padded. "auto" is
    as many as fit into the device's memory; it needs `effective_batch_size`, so that the steps are the same on every
    device."""
    gradient_accumulation_steps: Count | None = None
    """Micro-batches in one optimizer step; null is 1, or as many as `effective_batch_size` takes."""
    effective_batch_size: Count | None = None
    """Examples of one optimizer step on all devices together, however many these are; null is micro_batch_size x
    gradient_accumulation_steps on each."""
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] = 2048
    """Tokens of an example; a longer one is cut at its end."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
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
    """"adamw_8bit" keeps the optimizer's moments in 8 bits (Dettmers et al. 2022, arXiv:2110.02861)."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 2e-4
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradients are clipped to this norm; null leaves them."""
    lora_plus_ratio: Annotated[float, Field(ge=1, le=1000)] | None = None
    """B's learning rate is so many times learning_rate (LoRA+, Hayou et al. 2024, arXiv:2402.12354); null is 1."""


class Schedule(Section):
    type: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls to zero after warm-up."""
    epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    """How often each example is taken; null is 3, or as often as max_steps takes."""
    max_steps: Count | None = None
    """Optimizer steps of the run. Where epochs are given too, it ends at what comes first."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of all steps over which the learning rate rises from zero; 0.03 where warmup_steps is not given either."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _some_end(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("epochs") is None and given.get("max_steps") is None:
            return {**given, "epochs": 3}
        return given

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_ratio is not None and self.warmup_steps is not None:
            raise ValueError("give warmup_ratio or warmup_steps, not both")
        return self


class Evaluation(Section):
    fraction: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Fraction of the examples that is held out of training; 0 holds none out."""
    dataset: Annotated[
        Dataset | None, BeforeValidator(_dataset_from_path, json_schema_input_type=str | Dataset | None)
    ] = None
    """Held-out examples of their own, in place of fraction: named as the recipe's dataset is. They are written by the
    chat template of that one."""
    every_steps: Count | None = None
    """Besides the start and the end, evaluate at every so many optimizer steps; null is at each epoch's end."""
    patience: Count | None = None
    """Ends the run after so many evaluations in a row without a new lowest loss; null never does."""
    samples: Annotated[int, Field(ge=0, le=64)] = 0
    """Held-out prompts to answer at each evaluation, for people to read."""
    sample_tokens: Annotated[int, Field(ge=1, le=4096)] = 128
    """At most so many tokens an answer."""

    @property
    def holds_out(self) -> bool:
        return self.fraction > 0 or self.dataset is not None

    @model_validator(mode="after")
    def _something_held_out(self) -> Self:
        if self.fraction and self.dataset is not None:
            raise ValueError("give fraction or dataset, not both: either holds out what is evaluated")
        if self.dataset is not None and self.dataset.chat_template is not None:
            raise ValueError("dataset is written by the chat_template of the recipe's dataset; give it there alone")
        for name in ("patience", "samples"):
            if getattr(self, name) and not self.holds_out:
                raise ValueError(f"{name} wants held-out examples: set fraction above 0, such as 0.1, or give dataset")
        return self


class Parallel(Section):
    engine: Literal["ddp", "deepspeed", "fsdp"] = "ddp"
    """How the ranks share the work. "ddp": each holds the whole model (DistributedDataParallel). "deepspeed": ZeRO
    (Rajbhandari et al. 2020, arXiv:1910.02054) divides what zero_stage says. "fsdp": each holds a part of every weight
    (FullyShardedDataParallel). All give the same losses."""
    zero_stage: Literal[0, 1, 2, 3] | None = None
    """What DeepSpeed divides among the ranks: 1 the optimizer's state, 2 the gradients too, 3 the weights too; null
    is 2."""
    offload_optimizer: bool = False
    """Keeps DeepSpeed's optimizer in the machine's memory; from zero_stage 1."""
    offload_parameters: bool = False
    """Keeps DeepSpeed's weights in the machine's memory until a layer needs them; in zero_stage 3."""

    @model_validator(mode="after")
    def _of_deepspeed(self) -> Self:
        if self.engine != "deepspeed":
            for name in ("zero_stage", "offload_optimizer", "offload_parameters"):
                if getattr(self, name) not in (None, False):
                    raise ValueError(f'{name} is DeepSpeed\'s: set engine to "deepspeed"')
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer wants zero_stage 1, 2 or 3")
        if self.offload_parameters and self.zero_stage != 3:
            raise ValueError("offload_parameters wants zero_stage 3")
        return self


class Resources(Section):
    gpus: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs on each machine, with a rank on each; the ranks share every optimizer step. Without
    batch.effective_batch_size a step takes micro_batch_size x gradient_accumulation_steps examples on each. On a
    machine without GPUs its CPU slots stand in, and the ranks divide those that the machine has."""
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Machines, with so many GPUs of each: all at once, or the job waits."""
    allow_sharing: bool = False
    """Another job that allows it too may use the same devices at the same time."""


class Scheduling(Section):
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    """A waiting job of a higher priority starts first."""
    preemptible: bool = False
    """A waiting job of a higher priority may take the devices of this one: it saves, goes back to the queue, and goes
    on from there when there is room."""


class Checkpointing(Section):
    every_steps: Count | None = None
    """Save the adapter at every so many optimizer steps."""
    every_minutes: Annotated[float, Field(gt=0)] | None = None
    """Save the adapter at least so often. Where neither is given, the final one and those of evaluations with a new
    lowest loss are saved."""
    training_checkpoint_minutes: Annotated[float, Field(gt=0)] = 10
    """Besides that, save a training checkpoint, from which the run can go on, at least so often: no more work than that
    is ever lost."""
    keep_training_checkpoints: Count = 2
    """Training checkpoints that are kept, the newest ones. The adapters of all checkpoints are kept."""


class Recipe(Section):
    model: Text
    """The base model: a name under the server's models folder, an allowed path, or a hub id such as "org/name"."""
    dataset: Annotated[Dataset, BeforeValidator(_dataset_from_path, json_schema_input_type=str | Dataset)]
    """The examples: the id of a dataset, a path, or an object with more to say."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=patterns.TEXT)] | None = None
    """For people; need not be unique."""
    adapter: Adapter = Adapter()
    batch: Batch = Batch()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """bf16, fp16: base weights and arithmetic in that format, adapter and optimizer in fp32. fp16 scales the loss
    (GradScaler) and skips the steps whose gradients overflow. "auto" is bf16 where the device computes in it, else
    fp32."""
    base_bits: Literal[4, 8] | None = None
    """Base weights in 4 bits (NF4, QLoRA: Dettmers et al. 2023, arXiv:2305.14314) or 8 (LLM.int8(), arXiv:2208.07339);
    null keeps them in `precision`."""
    gradient_checkpointing: bool = False
    """Makes each layer's activations anew in the backward pass: less memory, a third more work."""
    torch_compile: bool = False
    """Compiles the layers in the first step, which takes from seconds to minutes; the plan tells what it took before.
    Steps may be faster from then on. It wants a C++ compiler on the worker's machine."""
    neftune_alpha: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Noise on the embeddings in training (NEFTune: Jain et al. 2023, arXiv:2310.05914); 5 is the paper's."""
    resources: Resources = Resources()
    parallel: Parallel = Parallel()
    evaluation: Evaluation = Evaluation()
    checkpointing: Checkpointing = Checkpointing()
    scheduling: Scheduling = Scheduling()
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 42

    @model_validator(mode="after")
    def _what_goes_together(self) -> Self:
        for param, message in self._conflicts():
            raise Conflict(param, message)
        return self

    def _conflicts(self) -> Iterator[tuple[str, str]]:
        engine, bits = self.parallel.engine, self.base_bits
        if engine == "fsdp" and self.precision == "fp16":
            yield "precision", 'got "fp16"; parallel.engine "fsdp" takes "bf16" or "fp32", or use engine "ddp"'
        if engine == "deepspeed" and self.precision == "fp16" and self.parallel.zero_stage == 0:
            yield "precision", 'got "fp16"; in DeepSpeed it wants a parallel.zero_stage of 1, 2 or 3'
        if self.parallel.zero_stage == 3 and self.adapter.init in CHANGES_BASE:
            yield (
                "adapter.init",
                f'got "{self.adapter.init}", which starts from whole weights; zero_stage 3 divides '
                'them as it loads them: use another stage, or parallel.engine "fsdp"',
            )
        if self.parallel.zero_stage == 3 and self.adapter.bias != "none":
            yield (
                "adapter.bias",
                f'got "{self.adapter.bias}"; zero_stage 3 divides the biases as it loads them: use '
                'another stage, or parallel.engine "fsdp"',
            )
        if self.optimizer.type == "adamw_8bit" and engine != "ddp":
            yield "optimizer.type", f'got "adamw_8bit"; parallel.engine "{engine}" takes "adamw", or use engine "ddp"'
        if self.adapter.init == "loftq" and bits != 4:
            yield "adapter.init", 'got "loftq", which starts from what a base in 4 bits has lost: set base_bits to 4'
        if self.torch_compile and engine != "ddp":
            yield "torch_compile", f'got true; parallel.engine "{engine}" takes no compiled layers: use engine "ddp"'
        if self.torch_compile and bits is not None:
            yield "torch_compile", f"got true; a base in {bits} bits is not compiled: leave base_bits out"
        if self.torch_compile and self.gradient_checkpointing:
            yield "torch_compile", "got true; it does not go with gradient_checkpointing: leave one of them out"
        if bits is not None:
            if engine == "fsdp" or self.parallel.zero_stage == 3:
                yield (
                    "base_bits",
                    f"got {bits}; such weights cannot be divided among ranks: use parallel.engine "
                    '"ddp", or "deepspeed" with a zero_stage below 3',
                )
            if self.adapter.init in CHANGES_BASE:
                yield "adapter.init", f'got "{self.adapter.init}", which changes the base; base_bits keeps it as it is'
            if self.adapter.bias != "none":
                yield "adapter.bias", f'got "{self.adapter.bias}"; with base_bits no bias of the base can be trained'
