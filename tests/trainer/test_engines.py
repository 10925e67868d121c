"""However the ranks share the work, they learn the same."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from contract.events import Evaluation, Metric, Started
from tests.trainer.conftest import Outcome, at_once

RunTrainer = Callable[..., Outcome]
ENGINES: dict[str, dict[str, Any]] = {
    "zero-0": {"engine": "deepspeed", "zero_stage": 0},
    "zero-1": {"engine": "deepspeed", "zero_stage": 1},
    "zero-2": {"engine": "deepspeed"},
    "zero-3": {"engine": "deepspeed", "zero_stage": 3},
    "zero-2 with its optimizer offloaded": {"engine": "deepspeed", "offload_optimizer": True},
    "zero-3 with all offloaded": {
        "engine": "deepspeed",
        "zero_stage": 3,
        "offload_optimizer": True,
        "offload_parameters": True,
    },
    "fsdp": {"engine": "fsdp"},
}


@pytest.fixture(scope="module")
def compared(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks have with each engine: see tests/trainer/engine_process.py."""
    out = tmp_path_factory.mktemp("engines")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = ["-m", "tests.trainer.engine_process", str(model), str(out), json.dumps({"ddp": {}} | ENGINES)]
    result = subprocess.run([*command, *program], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return out


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_has_the_raw_gradients_of_ddp(engine: str, compared: Path) -> None:
    """Not clipped, and before AdamW, which would hide a wrong scale."""
    ours, expected = (load_file(compared / f"{name}.gradients.safetensors") for name in (engine, "ddp"))
    assert ours.keys() == expected.keys()
    assert len(ours) > 0
    for name, gradient in ours.items():
        assert gradient.any(), name
        assert (gradient - expected[name]).abs().max() < 1e-5 * expected[name].abs().max(), name


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_clips_as_ddp_does(engine: str, compared: Path) -> None:
    """Steps of AdamW whose gradients are all clipped. It hides a wrong scale until that changes: in the third loss."""
    ours, expected, free = (
        json.loads((compared / f"{name}.steps.json").read_text()) for name in (engine, "ddp", "not clipped")
    )
    assert len(ours["losses"]) == 4
    assert ours["losses"] == pytest.approx(expected["losses"], rel=2e-6)
    assert ours["grad_norms"] == pytest.approx(expected["grad_norms"], rel=2e-5)
    assert free["losses"] != pytest.approx(expected["losses"], rel=2e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_state_goes_on_in_another_engine(engine: str, compared: Path) -> None:
    """The adapter and the moments of each engine after its steps, loaded into this one, are what it then tells."""
    told = json.loads((compared / f"{engine}.loaded.json").read_text())
    assert told == {"ddp": True, "zero-1": True, "zero-3": True, "fsdp": True}


@pytest.mark.parametrize("engine", ["zero-1", "zero-2", "zero-3"])
def test_deepspeeds_fp16_skips_a_step_that_overflows_and_goes_on_at_a_lower_scale(engine: str, compared: Path) -> None:
    told = json.loads((compared / f"{engine}.fp16.json").read_text())
    expected = json.loads((compared / "ddp.steps.json").read_text())
    assert told["losses"] == pytest.approx(expected["losses"][:2], rel=0.01)
    assert told["overflows"] == [False, True, False]
    assert told["scales"] == [2**16, 2**16, 2**15]
    assert told["scaler"] == {"scale": 2**15, "clean_steps": 1}
    assert told["least"] == [True, 1.0]
    assert told["kept"], "the step that overflowed changed a weight"
    assert told["same"], "its fp32 weights, moments and loss scale do not survive being loaded"


@pytest.mark.parametrize("engine", ["zero-2", "zero-3", "fsdp"])
def test_a_run_of_an_engine_has_the_evaluations_samples_and_adapter_of_ddp(
    engine: str, recipe: dict[str, Any], run_trainer: RunTrainer
) -> None:
    recipe |= {
        "batch": {"micro_batch": 2, "effective": 4},
        "evaluation": {"share": 0.25, "samples": 2, "sample_tokens": 5},
        "adapter": {"r": 4, "target_modules": ["q_proj", "down_proj"], "modules_to_save": ["norm"], "dora": True},
        "gradient_checkpointing": True,
        "neftune_alpha": 1e-6,
    }
    alike, divided = at_once(
        lambda: run_trainer(recipe, ranks=2, name="ddp"),
        lambda: run_trainer(recipe | {"parallel": ENGINES[engine]}, ranks=2, name=engine),
    )
    runs = {"ddp": alike, engine: divided}
    for outcome in runs.values():
        assert outcome.exit_code == 0, outcome.output
    ours, expected = (numbers(runs[name]) for name in (engine, "ddp"))
    assert len(expected) == 6 + 3
    assert ours == pytest.approx(expected, rel=1e-4)
    (started,) = (event for event in runs[engine].events if isinstance(event, Started))
    (plain,) = (event for event in runs["ddp"].events if isinstance(event, Started))
    assert started.engine == (engine if engine == "fsdp" else f"deepspeed {engine}")
    assert (started.total_parameters, started.trainable_parameters) == (
        plain.total_parameters,
        plain.trainable_parameters,
    )
    said = [[(e.step, e.generated) for e in run.events if e.type == "sample"] for run in runs.values()]
    assert len(said[0]) == 2 * 3
    assert said[0] == said[1]
    adapters = [load_file(run.folder / "adapter" / "adapter_model.safetensors") for run in runs.values()]
    assert adapters[0].keys() == adapters[1].keys()
    for name, tensor in adapters[0].items():
        assert (tensor - adapters[1][name]).abs().max() < 1e-4, name


def numbers(outcome: Outcome) -> list[float]:
    metrics = [event.loss for event in outcome.events if isinstance(event, Metric)]
    return metrics + [event.eval_loss for event in outcome.events if isinstance(event, Evaluation)]
