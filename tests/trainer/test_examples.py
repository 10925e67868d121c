"""Every recipe of examples/recipes is run as docs/parallel.md tells, with a tiny model in the place of its own."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from contract.events import CheckpointEvent, DoneEvent, MetricEvent, StartedEvent
from contract.recipe import Recipe
from contract.recipe_errors import parse_recipe
from tests.support.servers import free_port
from tests.trainer.tiny_models import SIZES
from tests.trainer.trainer_process import Outcome
from trainer.device import this_device
from trainer.precision import resolve_precision
from worker.launchers.torchrun import Rendezvous, launcher

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "examples/recipes").iterdir())
FIRST = "quickstart"
"""Those that no run of the tests leaves out."""
MODELS: dict[str, Callable[..., Any]] = {
    "smollm2-135m-instruct": lambda **sizes: LlamaForCausalLM(LlamaConfig(**SIZES, **sizes, tie_word_embeddings=True)),
    "EleutherAI/pythia-70m": lambda **sizes: GPTNeoXForCausalLM(
        GPTNeoXConfig(**(SIZES | {"num_key_value_heads": 4}), **sizes)
    ),
}
"""Random ones of the families of those that the recipes name."""
STEPS = 2


@pytest.fixture(scope="session")
def tiny(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, make in MODELS.items():
        torch.manual_seed(0)
        folders[name] = tmp_path_factory.mktemp("model")
        make(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=2).save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


def commands(recipe: Recipe) -> list[list[str]]:
    """One for each machine."""
    nodes, processes = recipe.resources.nodes, recipe.resources.gpus
    if nodes == 1:
        return [launcher(processes)]
    endpoint = f"localhost:{free_port()}"
    return [
        launcher(processes, Rendezvous(nodes, endpoint, id="example", address="localhost", head=machine == 0))
        for machine in range(nodes)
    ]


def run(recipe: Recipe, folder: Path) -> list[Outcome]:
    """Of each machine, with a run folder of its own."""
    started = []
    for index, command in enumerate(commands(recipe)):
        run_dir = folder / f"machine-{index}"
        run_dir.mkdir()
        (run_dir / "recipe.json").write_text(recipe.model_dump_json())
        log = (run_dir / "trainer.log").open("w")
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
        words = [*command, str(run_dir)]
        started.append((subprocess.Popen(words, cwd=ROOT, env=environment, stdout=log, stderr=log), run_dir))
        log.close()
    try:
        return [Outcome(path, process.wait(120), (path / "trainer.log").read_text()) for process, path in started]
    finally:
        for process, _ in started:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        path if path.stem == FIRST else pytest.param(path, marks=pytest.mark.exhaustive, id=path.stem)
        for path in RECIPES
    ],
    ids=lambda path: path.stem,
)
def test_recipe_among_the_examples_trains_as_it_says(path: Path, tiny: dict[str, Path], tmp_path: Path) -> None:
    given = json.loads(path.read_text())
    base = tiny[given["model"]]
    recipe = parse_recipe(
        json.dumps(given | {"model": str(base), "schedule": {"max_steps": STEPS, "warmup_steps": 0}}).encode()
    )
    outcomes = run(recipe, tmp_path)
    for outcome in outcomes:
        assert outcome.exit_code == 0, outcome.output
    # Rank 0's machine has it all, and the others nothing.
    (outcome,) = (outcome for outcome in outcomes if (outcome.folder / "events.jsonl").exists())
    assert sum((other.folder / "adapter").exists() for other in outcomes) == 1

    (started,) = (event for event in outcome.events if isinstance(event, StartedEvent))
    parallel, resources = recipe.parallel, recipe.resources
    zero = f"deepspeed zero-{parallel.zero_stage}"
    assert started.engine == (zero if parallel.engine == "deepspeed" else parallel.engine)
    assert started.world_size == resources.gpus * resources.nodes
    assert started.precision == resolve_precision(recipe, this_device())
    assert len([event for event in outcome.events if isinstance(event, MetricEvent)]) == STEPS
    assert isinstance(outcome.events[-2], CheckpointEvent)
    assert outcome.events[-2].final
    done = outcome.events[-1]
    assert isinstance(done, DoneEvent)
    assert done.completed

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), outcome.folder / "adapter")
    trained = [parameter for name, parameter in model.named_parameters() if "lora_B" in name]
    assert len(trained) > 0
    assert all(parameter.any() for parameter in trained)
