"""What estimate/ tells of a recipe, against PEFT's own counts and against the tensors of a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

from contract.events import MetricEvent
from contract.machine import Machine
from contract.model.folder import loaded_base
from contract.model.target_modules import check_adapter
from contract.recipe import Recipe
from dataset.dataset_file import DatasetFile
from dataset.lengths import measure_lengths
from dataset.rendering.folder_tokenizer import read_tokenizer
from estimate.inputs import DeviceKind, PackedRow, SizedModel
from estimate.memory import TOLERANCE, estimate_memory
from estimate.plan import LocalModel, adapted_base, plan_run
from estimate.work import LengthCounts
from tests.support.files import write_tokenizer
from tests.trainer.families import FAMILIES, targets_of
from tests.trainer.live_memory import documents, peak_of_two_steps
from tests.trainer.trainer_process import Outcome
from trainer.model.base_model import load_model

CPU = torch.device("cpu")
SIZES = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 6}


def base_of(recipe: Recipe, folder: Path, earlier: Path | None = None) -> LocalModel:
    if earlier is None:
        loaded = loaded_base(folder)
        check_adapter(recipe.adapter, loaded.shapes, loaded.kind)
    return adapted_base(loaded_base(folder), recipe.adapter, earlier)


def counted(recipe: Recipe) -> tuple[int, int]:
    model = load_model(recipe, torch.float32, CPU).model
    found: tuple[int, int] = model.get_nb_trainable_parameters()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_parameter_counts_match_peft(
    family: str,
    make_family: Callable[[str], Path],
) -> None:
    folder = make_family(family)
    names = FAMILIES[family][1]
    adapters: list[dict[str, Any]] = [{"target_modules": targets} for targets in targets_of(family)]
    adapters += [{"rank_pattern": {names[0]: 3}, "bias": "all"}, {"dora": True, "bias": "lora_only"}]
    if family not in ("gpt2", "gpt_neox", "bloom"):
        adapters += [{"modules_to_save": ["embed_tokens"], "target_modules": names}]
    for adapter in adapters:
        recipe = Recipe.model_validate({"model": str(folder), "dataset": "none", "adapter": {"r": 4, **adapter}})
        base = base_of(recipe, folder)
        assert (base.trained.parameters, base.parameters) == counted(recipe), adapter


def test_earlier_adapter_parameters_match_its_file(
    make_family: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    folder, earlier = make_family("llama"), tmp_path / "earlier"
    shape = {"r": 4, "dora": True, "rank_pattern": {"q_proj": 2}, "modules_to_save": ["embed_tokens"]}
    recipe = Recipe.model_validate({"model": str(folder), "dataset": "none", "adapter": shape})
    load_model(recipe, torch.float32, CPU).model.save_pretrained(earlier, save_embedding_layers=False)
    goes_on = Recipe.model_validate({"model": str(folder), "dataset": "none", "adapter": {"start_from": str(earlier)}})
    base = base_of(goes_on, folder, earlier)
    assert (base.trained.parameters, base.parameters) == counted(goes_on) == counted(recipe)


@pytest.fixture(scope="module")
def make_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    """The folder of a random model of some 30 M numbers."""
    made: dict[str, Path] = {}

    def make(config: Any) -> Path:
        if config.model_type not in made:
            made[config.model_type] = tmp_path_factory.mktemp(config.model_type)
            AutoModelForCausalLM.from_config(config).save_pretrained(made[config.model_type])
        return made[config.model_type]

    return make


LLAMA = LlamaConfig(**SIZES, vocab_size=8000, num_key_value_heads=2)
NEOX = GPTNeoXConfig(**SIZES, vocab_size=8000)


EXHAUSTIVE = pytest.mark.exhaustive


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "change", "precision", "lengths"),
    [
        (LLAMA, {}, "fp32", [100, 90, 60]),
        pytest.param(
            LLAMA, {"gradient_checkpointing": True, "adapter": {"dora": True}}, "fp32", [260], marks=EXHAUSTIVE
        ),
        pytest.param(
            LLAMA,
            {"adapter": {"r": 64, "dropout": 0.1, "modules_to_save": ["lm_head"]}},
            "fp32",
            [120, 120],
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(LLAMA, {"adapter": {"r": 8}}, "bf16", [60, 40], marks=EXHAUSTIVE),
        pytest.param(
            NEOX, {"adapter": {"target_modules": ["query_key_value"]}}, "fp32", [150, 50], marks=pytest.mark.exhaustive
        ),
    ],
    ids=["plain", "checkpointed, DoRA", "head, dropout", "bf16", "another family"],
)
def test_estimated_memory_is_within_a_quarter(
    config: Any, change: dict[str, Any], precision: str, lengths: list[int], make_base: Callable[[Any], Path]
) -> None:
    folder = make_base(config)
    recipe = Recipe.model_validate(
        {"model": str(folder), "dataset": "none", "batch": {"micro_batch_size": 3}, **change}
    )
    base = base_of(recipe, folder)
    assert base.architecture is not None
    row = documents(lengths, 20)
    model = SizedModel(base.shapes, base.config, base.architecture, base.trained)
    reported = estimate_memory(
        recipe, model, PackedRow(sum(lengths), len(row), 20 * len(row)), DeviceKind(False, precision, None), 1
    )

    module = load_model(recipe, {"fp32": torch.float32, "bf16": torch.bfloat16}[precision], CPU)
    own = sum(parameter.nbytes for parameter in module.parameters())
    assert reported.weights + reported.adapter == own
    measured = peak_of_two_steps(module, recipe, row)
    estimate = reported.total - reported.overhead
    assert measured / TOLERANCE < estimate < measured * TOLERANCE
    # Most of it is the weights, which are known: what is not is held to the same.
    assert (measured - own) / TOLERANCE < estimate - own < (measured - own) * TOLERANCE


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("ranks", [1, 2])
def test_planned_memory_is_within_a_quarter(
    ranks: int, make_base: Callable[[Any], Path], run_trainer: Callable[..., Outcome], tmp_path: Path
) -> None:
    """As POST /plans and the refusal of POST /jobs tell it: from the headers, the dataset's lengths and the machine."""
    folder, rows = make_base(LLAMA), tmp_path / "rows.jsonl"
    write_tokenizer(folder)
    said = [{"role": "user", "content": "?" * 200}, {"role": "assistant", "content": "!" * 200}]
    rows.write_text((json.dumps({"messages": said}) + "\n") * 16)
    requested = {"batch": {"micro_batch_size": 3}, "schedule": {"max_steps": 2}, "precision": "fp32"}
    requested |= {"model": str(folder), "dataset": str(rows), "resources": {"gpus": ranks}}
    recipe = Recipe.model_validate(requested)
    found = measure_lengths(read_tokenizer(folder), DatasetFile(path=rows))
    lengths = LengthCounts(found.longest, found.first, found.supervised / found.tokens, 16)
    machine = Machine(gpus=[], cores=2, cpu_bf16=False, slots=ranks, memory_bytes=64 << 30)
    (reported,) = plan_run(recipe, 16, [machine], base_of(recipe, folder), lengths).devices

    outcome = run_trainer(requested, ranks)
    assert outcome.exit_code == 0, outcome.output
    measured = max(event.memory_bytes for event in outcome.events if isinstance(event, MetricEvent))
    assert measured / TOLERANCE < reported.memory.total < measured * TOLERANCE
