"""What a CPU cannot show: the engines and formats on a CUDA device, against fp32 there."""

import importlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from contract.events import DoneEvent, EvaluationEvent, MetricEvent, StartedEvent
from contract.model.folder import loaded_base
from contract.recipe import Recipe
from estimate.inputs import DeviceKind, PackedRow, SizedModel
from estimate.memory import TOLERANCE, estimate_memory
from estimate.plan import adapted_base
from tests.trainer.adapters import loss, some_rows
from tests.trainer.trainer_process import Outcome
from trainer.model.attention import DocumentBounds, Reach, attend_documents
from trainer.model.base_model import load_model
from trainer.model.fp8 import Fp8Linear, cast_rows
from trainer.model.kernels import ARCHITECTURES, is_installed, use_kernels

RunTrainer = Callable[..., Outcome]
pytestmark = [
    pytest.mark.gpu,
    # By autograd's own thread, where the first product of a process is one of its.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS, but there was no current CUDA context"),
]


@pytest.fixture(autouse=True)
def layers_as_they_come() -> Iterator[None]:
    """Liger puts its own into the modules of transformers: models that other tests load are to have none of them."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in ARCHITECTURES:
            module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
            for name, value in list(vars(module).items()):
                patch.setattr(module, name, value)
        yield


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"precision": "bf16", "base_bits": 4, "optimizer": {"type": "adamw_8bit", "learning_rate": 1e-2}},
        {"precision": "bf16", "base_bits": 8},
        {"precision": "fp8"},
        {"precision": "bf16", "batch": {"micro_batch_size": "auto", "effective_batch_size": 4}},
        {
            "precision": "fp16",
            "parallel": {"engine": "deepspeed"},
            "batch": {"micro_batch_size": 2, "gradient_accumulation_steps": 2},
        },
        {
            "precision": "bf16",
            "parallel": {"engine": "deepspeed", "zero_stage": 3, "offload_optimizer": True, "offload_parameters": True},
        },
        {"precision": "bf16", "parallel": {"engine": "fsdp"}, "gradient_checkpointing": True},
    ],
    ids=["bf16", "fp16", "4 bits", "8 bits", "fp8", "auto", "accumulated zero-2 in fp16", "zero-3 offloaded", "fsdp"],
)
def test_gpu_trains_as_in_fp32(change: dict[str, Any], recipe: dict[str, Any], run_trainer: RunTrainer) -> None:
    recipe |= {"evaluation": {"fraction": 0.25, "samples": 1, "sample_tokens": 4}}
    exact = run_trainer(recipe, name="exact")
    assert exact.exit_code == 0, exact.output
    outcome = run_trainer(recipe | change, name="changed")
    assert outcome.exit_code == 0, outcome.output
    (started,) = (event for event in outcome.events if isinstance(event, StartedEvent))
    assert (started.device, started.precision) == (torch.cuda.get_device_name(), change["precision"])
    losses, expected = ([e.loss for e in run.events if isinstance(e, MetricEvent)] for run in (outcome, exact))
    assert losses == pytest.approx(expected, rel=0.05)
    evaluations = [event.eval_loss for event in outcome.events if isinstance(event, EvaluationEvent)]
    assert evaluations[-1] < evaluations[0]
    done = outcome.events[-1]
    assert isinstance(done, DoneEvent)
    assert done.completed


def test_devices_of_one_machine_train_as_one_does(recipe: dict[str, Any], run_trainer: RunTrainer) -> None:
    """By NCCL, on as many as there are."""
    recipe["batch"] = {"micro_batch_size": 1, "effective_batch_size": 4}
    one = run_trainer(recipe, name="one")
    for name, parallel in (("ddp", {}), ("zero-2", {"engine": "deepspeed"}), ("fsdp", {"engine": "fsdp"})):
        all_of_them = run_trainer(recipe | {"parallel": parallel}, ranks=torch.cuda.device_count(), name=name)
        assert all_of_them.exit_code == 0, all_of_them.output
        losses, expected = ([e.loss for e in run.events if isinstance(e, MetricEvent)] for run in (all_of_them, one))
        assert losses == pytest.approx(expected, rel=1e-3), name


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bf16"},
        {"precision": "bf16", "gradient_checkpointing": True},
        {"precision": "bf16", "base_bits": 4, "optimizer": {"type": "adamw_8bit"}},
        {"precision": "fp8"},
        {"precision": "fp32", "adapter": {"r": 8, "target_modules": ["q_proj", "v_proj"]}},
    ],
    ids=["bf16", "checkpointed", "4 bits", "fp8", "fp32"],
)
def test_allocated_memory_is_within_a_quarter(
    change: dict[str, Any], tmp_path: Path, tokenizer: PreTrainedTokenizerFast, run_trainer: RunTrainer
) -> None:
    folder, rows = tmp_path / "model", tmp_path / "rows.jsonl"
    sizes = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 12, "num_attention_heads": 16}
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=8000)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    said = [{"role": "user", "content": "?!" * 400}, {"role": "assistant", "content": "!?" * 100}]
    rows.write_text((json.dumps({"messages": said}) + "\n") * 16)
    given = {"model": str(folder), "dataset": str(rows), "batch": {"micro_batch_size": 4}, "schedule": {"max_steps": 3}}
    outcome = run_trainer(given | change)
    assert outcome.exit_code == 0, outcome.output
    metrics = [event for event in outcome.events if isinstance(event, MetricEvent)]
    measured = max(metric.memory_bytes for metric in metrics)

    recipe = Recipe.model_validate(given | change)
    base = adapted_base(loaded_base(folder), recipe.adapter, None)
    assert base.architecture is not None
    model = SizedModel(base.shapes, base.config, base.architecture, base.trained)
    row = PackedRow(metrics[0].tokens, 4, metrics[0].supervised_tokens)
    reported = estimate_memory(recipe, model, row, DeviceKind(True, change["precision"], None), 1)
    # The context is no allocation of torch's.
    estimate = reported.total - reported.overhead
    assert measured / TOLERANCE < estimate < measured * TOLERANCE


@pytest.mark.parametrize("lengths", [[5, 300, 64], [369]], ids=["many documents", "one"])
@pytest.mark.parametrize("reach", [None, Reach(32, False), Reach(32, True)], ids=["all", "window", "chunks"])
def test_packed_attention_in_16_bits_is_accurate(lengths: list[int], reach: Reach | None) -> None:
    check_16_bits(lengths, None, reach)


@pytest.mark.parametrize("reach", [None, Reach(32, False)], ids=["all", "window"])
def test_shared_prompts_in_16_bits_are_accurate(reach: Reach | None) -> None:
    """The kernel has to align the last query of a document with its last key."""
    check_16_bits([80, 40, 64, 9], [(0, 0), (0, 50), (0, 0), (120, 64)], reach)


def check_16_bits(lengths: list[int], shared: list[tuple[int, int]] | None, reach: Reach | None) -> None:
    torch.manual_seed(0)
    exact = [torch.randn(1, heads, sum(lengths), 64, device="cuda", requires_grad=True) for heads in (8, 2, 2)]
    halves = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
    offsets = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device="cuda")
    outputs = [
        attend_documents(
            torch.nn.Identity(),
            *tensors,
            reach,
            documents=DocumentBounds(lengths, offsets, shared),
            scaling=0.1,
        )[0]
        for tensors in (exact, halves)
    ]
    torch.testing.assert_close(outputs[1].float(), outputs[0], rtol=0.02, atol=0.02)
    upstream = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(upstream.to(output.dtype))
    for tensor, half in zip(exact, halves, strict=True):
        assert tensor.grad is not None
        assert half.grad is not None
        assert (half.grad.float() - tensor.grad).norm() < 0.02 * tensor.grad.norm()


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gpt2 with dropout"])
def test_gpu_has_the_gradients_of_a_cpu(kind: str, make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    """With kernels of its own, where the architecture has some."""
    given = Recipe.model_validate(recipe | {"model": str(make_model(kind)), "adapter": {"r": 4, "alpha": 8}})
    gradients = []
    for device in (torch.device("cpu"), torch.device("cuda", 0)):
        module = load_model(given, torch.float32, device).eval()
        if device.type == "cuda":
            use_kernels(module.model.get_base_model())
        torch.manual_seed(1)
        for name, parameter in module.named_parameters():
            if "lora_" in name:
                parameter.data = (0.05 * torch.randn(parameter.shape)).to(device)
        total = loss(module, some_rows(recipe).to(device))
        total.backward()
        gradients.append({name: p.grad.cpu() for name, p in module.named_parameters() if p.grad is not None})
        gradients[-1]["the loss"] = total.detach().cpu()
    on_cpu, on_gpu = gradients
    assert on_cpu.keys() == on_gpu.keys()
    for name, gradient in on_cpu.items():
        assert (on_gpu[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def test_kernels_are_there() -> None:
    """Without them a GPU trains as well, and slower: the test above would not show it."""
    assert is_installed()


@pytest.mark.parametrize("shape", [(300, 64), (7, 4096), (5, 14336), (0, 64)])
def test_gpu_casts_rows_to_fp8_as_a_cpu_does(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape).bfloat16() * torch.exp(2 * torch.randn(shape[0], 1)).bfloat16()
    matrix[1:2] = 0
    on_cpu, on_gpu = cast_rows(matrix), cast_rows(matrix.cuda())
    torch.testing.assert_close(on_gpu.scales.cpu(), on_cpu.scales)
    values, expected = (each.values.cpu().float() for each in (on_gpu, on_cpu))
    # A quotient that is rounded another way may be on the other side of a tie.
    assert (values != expected).sum() <= 1e-2 * values.numel()
    torch.testing.assert_close(values, expected, rtol=1 / 8, atol=2**-9)


@pytest.mark.parametrize("rows", [0, 1, 5, 300])
def test_gpu_has_the_fp8_products_of_a_cpu(rows: int) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(4096, 1024, dtype=torch.bfloat16)
    linear.requires_grad_(False)
    linear.__class__ = Fp8Linear
    linear.convert()
    x, of_y = torch.randn(rows, 4096).bfloat16(), torch.randn(rows, 1024).bfloat16()
    results = []
    for device in ("cpu", "cuda"):
        placed = x.detach().clone().to(device).requires_grad_()
        y = linear.to(device)(placed)
        y.backward(of_y.to(device))
        results.append((y.detach().float().cpu(), placed.grad.float().cpu()))
    for on_cpu, on_gpu in zip(*results, strict=True):
        # Hopper adds up such products with 14 bits.
        assert (on_gpu - on_cpu).norm() <= 0.01 * on_cpu.norm()
