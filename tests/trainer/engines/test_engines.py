"""However the ranks share the work, they learn the same."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from contract.events import EvaluationEvent, MetricEvent, SampleEvent, StartedEvent
from contract.recipe import Recipe
from tests.trainer.engine_process import TAKES_STATES
from tests.trainer.trainer_process import Outcome, at_once
from trainer.model.base_model import load_model

RunTrainer = Callable[..., Outcome]
# The first of them has all engines take their steps.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ENGINES: dict[str, dict[str, Any]] = {
    "zero-0": {"engine": "deepspeed", "zero_stage": 0},
    "zero-1": {"engine": "deepspeed", "zero_stage": 1},
    "zero-2": {"engine": "deepspeed"},
    "zero-3": {"engine": "deepspeed", "zero_stage": 3},
    "zero-1 with its optimizer offloaded": {"engine": "deepspeed", "zero_stage": 1, "offload_optimizer": True},
    "zero-2 with its optimizer offloaded": {"engine": "deepspeed", "offload_optimizer": True},
    "zero-3 with all offloaded": {
        "engine": "deepspeed",
        "zero_stage": 3,
        "offload_optimizer": True,
        "offload_parameters": True,
    },
    "fsdp": {"engine": "fsdp"},
}


WHOLE = {"r": 4, "modules_to_save": ["embed_tokens", "norm"], "dora": True}
VARIANTS: dict[str, dict[str, Any]] = {
    "bf16": {"recipe": {"precision": "bf16"}, "engines": ["zero-0", "zero-1", "zero-2", "zero-3", "fsdp"]},
    "fp8": {"recipe": {"precision": "fp8"}, "engines": ["zero-0", "zero-2"]},
    "4 bits": {"recipe": {"base_bits": 4}, "engines": ["zero-2"]},
    "tied embeddings whole": {"recipe": {"adapter": WHOLE}, "engines": ["zero-2", "zero-3", "fsdp"]},
    "an earlier adapter": {"recipe": {"adapter": {"start_from": "EARLIER"}}, "engines": ["zero-3", "fsdp"]},
}
TOLERANCE = {"bf16": 2e-3}
"""A sum in another order, of gradients or in a product, may round a number in bf16 the other way."""


MOST_DIFFERENT = {"zero-2", "zero-3", "fsdp", "tied embeddings whole"}
"""The engines and the variant that no run of the tests leaves out."""


def marked(engine: str, *more: str) -> Any:
    marks = () if {engine, *more} <= MOST_DIFFERENT else (pytest.mark.exhaustive,)
    return pytest.param(*more, engine, marks=marks, id="-".join((*more, engine)))


EACH = pytest.mark.parametrize("engine", [marked(engine) for engine in ENGINES])


@pytest.fixture(scope="module")
def compared(model: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """What two ranks have with each engine that the chosen tests name, and with those that take each one's states: see
    tests/trainer/engine_process.py."""
    chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    needed = {each.get("engine") for each in chosen} | set(TAKES_STATES)
    engines = {name: given for name, given in ENGINES.items() if name in needed}
    out = tmp_path_factory.mktemp("engines")
    recipe = {"model": str(model), "dataset": "unused", "adapter": {"r": 4}}
    earlier = load_model(Recipe.model_validate(recipe), torch.float32, torch.device("cpu"))
    for name, parameter in earlier.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)
    earlier.model.save_pretrained(out / "earlier", save_embedding_layers=False)
    requested = {each.get("variant") for each in chosen}
    named = {
        name: given | {"engines": [engine for engine in given["engines"] if engine in engines]}
        for name, given in VARIANTS.items()
        if name in requested
    }
    variants = json.dumps(named).replace("EARLIER", str(out / "earlier"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = ["-m", "tests.trainer.engine_program", str(model), str(out), json.dumps({"ddp": {}} | engines), variants]
    result = subprocess.run([*command, *program], capture_output=True, text=True, timeout=800)
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def steps_of(compared: Path, name: str) -> dict[str, list[float]]:
    return dict(json.loads((compared / f"{name}.steps.json").read_text()))


@EACH
def test_engine_has_the_raw_gradients_of_ddp(engine: str, compared: Path) -> None:
    """Of two steps of SGD, not clipped: AdamW would hide a wrong scale. In stage 3 PEFT's modules compute, which add up
    in another order: no less exact, but the second step's gradients are those of other weights by then."""
    ours, expected = (load_file(compared / f"{name}.gradients.safetensors") for name in (engine, "ddp"))
    assert ours.keys() == expected.keys()
    assert len(ours) > 0
    for name, gradient in ours.items():
        assert gradient.any(), name
        near = 1e-4 if engine.startswith("zero-3") else 1e-5
        assert (gradient - expected[name]).abs().max() < near * expected[name].abs().max(), name


@EACH
def test_engine_clips_as_ddp_does(engine: str, compared: Path) -> None:
    """Steps of AdamW whose gradients are all clipped."""
    ours, expected = (steps_of(compared, name) for name in (engine, "ddp"))
    assert len(ours["losses"]) == 3
    assert ours["losses"] == pytest.approx(expected["losses"], rel=2e-6)
    assert ours["grad_norms"] == pytest.approx(expected["grad_norms"], rel=2e-5)


def test_adamw_hides_clipping_until_the_third_loss(compared: Path) -> None:
    """The first step is as long whatever the scale, but for AdamW's epsilon; in the second the moments have gradients
    that were scaled differently."""
    clipped, free = (steps_of(compared, name)["losses"] for name in ("ddp", "not clipped"))
    assert free[:2] == pytest.approx(clipped[:2], rel=1e-5)
    assert free[2] != pytest.approx(clipped[2], rel=2e-5)


@pytest.mark.parametrize(
    ("variant", "engine"),
    [marked(engine, variant) for variant, given in VARIANTS.items() for engine in given["engines"]],
)
def test_engines_have_equal_losses_in_each_variant(variant: str, engine: str, compared: Path) -> None:
    ours, expected = (steps_of(compared, f"{variant}, {name}")["losses"] for name in (engine, "ddp"))
    assert ours == pytest.approx(expected, rel=TOLERANCE.get(variant, 1e-5))
    assert expected != pytest.approx(steps_of(compared, "ddp")["losses"], rel=1e-5)


@EACH
def test_state_goes_on_in_another_engine(engine: str, compared: Path) -> None:
    """The adapter and the moments of each engine after its steps, loaded into this one, are what it then tells."""
    reported = json.loads((compared / f"{engine}.loaded.json").read_text())
    assert reported == {"ddp": True, "zero-3": True, "fsdp": True}


@pytest.mark.parametrize("engine", [marked("zero-1"), marked("zero-2"), marked("zero-3")])
def test_deepspeed_fp16_skips_an_overflowing_step(engine: str, compared: Path) -> None:
    reported = json.loads((compared / f"{engine}.fp16.json").read_text())
    expected = json.loads((compared / "ddp.steps.json").read_text())
    assert reported["losses"] == pytest.approx(expected["losses"][:2], rel=0.01)
    assert reported["overflows"] == [False, True, False]
    assert reported["scales"] == [2**16, 2**16, 2**15]
    assert reported["scaler"] == {"scale": 2**15, "clean_steps": 1}
    assert reported["raised"] == {"scale": 2**11, "clean_steps": 0}
    assert reported["least"] == [True, 1.0]
    assert reported["kept"], "the step that overflowed changed a weight"
    assert reported["same"], "its fp32 weights, moments and loss scale do not survive being loaded"


@pytest.mark.exhaustive
def test_engines_have_equal_evaluations_samples_and_adapters(recipe: dict[str, Any], run_trainer: RunTrainer) -> None:
    recipe |= {
        "batch": {"micro_batch_size": 2, "effective_batch_size": 4},
        "evaluation": {"fraction": 0.25, "samples": 2, "sample_tokens": 5},
        "adapter": {"r": 4, "target_modules": ["q_proj", "down_proj"], "modules_to_save": ["norm"], "dora": True},
        "gradient_checkpointing": True,
        "neftune_alpha": 1e-6,
    }
    engines: dict[str, dict[str, Any]] = {"ddp": {}} | {name: ENGINES[name] for name in ("zero-2", "zero-3", "fsdp")}
    outcomes = at_once(
        *(
            functools.partial(run_trainer, recipe | {"parallel": parallel}, ranks=2, name=name)
            for name, parallel in engines.items()
        )
    )
    for outcome in outcomes:
        assert outcome.exit_code == 0, outcome.output
    plain, *others = outcomes
    assert len(numbers(plain)) == 6 + 3
    assert len(said(plain)) == 2 * 3
    for outcome in others:
        name = outcome.folder.name
        assert numbers(outcome) == pytest.approx(numbers(plain), rel=1e-4), name
        assert said(outcome) == said(plain), name
        assert start_of(outcome).engine == (name if name == "fsdp" else f"deepspeed {name}")
        counts = [(event.total_parameters, event.trainable_parameters) for event in map(start_of, (outcome, plain))]
        assert counts[0] == counts[1], name
        ours, expected = (load_file(run.folder / "adapter/adapter_model.safetensors") for run in (outcome, plain))
        assert ours.keys() == expected.keys()
        for key, tensor in ours.items():
            assert (tensor - expected[key]).abs().max() < 1e-4, (name, key)


def start_of(outcome: Outcome) -> StartedEvent:
    return next(event for event in outcome.events if isinstance(event, StartedEvent))


def said(outcome: Outcome) -> list[tuple[int, str]]:
    return [(event.step, event.generated) for event in outcome.events if isinstance(event, SampleEvent)]


def numbers(outcome: Outcome) -> list[float]:
    metrics = [event.loss for event in outcome.events if isinstance(event, MetricEvent)]
    return metrics + [event.eval_loss for event in outcome.events if isinstance(event, EvaluationEvent)]
