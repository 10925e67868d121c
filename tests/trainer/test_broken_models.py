"""Models that cannot be loaded or trained are their owner's to change: they fail once, without a traceback."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from contract.failure import FailureCode, InputError
from contract.recipe import Recipe
from tests.trainer.adapters import documents_of, load
from tests.trainer.tiny_models import SIZES
from tests.trainer.trainer_process import Outcome
from trainer.data.examples import load_data
from trainer.data.tokenizer import load_tokenizer
from trainer.data.vocabulary import check_vocabulary
from trainer.model.base_model import loading_errors

BRACKETS = "[" * 100_000


@pytest.fixture
def broken(model: Path, tmp_path: Path) -> Path:
    """A whole model, to be broken."""
    return shutil.copytree(model, tmp_path / "broken")


def change(folder: Path, name: str, **fields: Any) -> None:
    given = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({key: value for key, value in (given | fields).items() if value != "absent"}))


def refusal(call: Callable[[], object], folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        call()
    failure = caught.value.failure
    assert (failure.code, failure.param) == (FailureCode.MODEL_UNSUPPORTED, "model")
    assert str(folder) not in failure.message
    assert len(failure.message) < 800
    return failure.message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dtype": "x"}, "x"),
        ({"model_type": {}}, "TypeError"),
        ({"model_type": "absent"}, "model_type"),
        ({"model_type": "unheard_of"}, "unheard_of"),
        ({"model_type": "clip"}, "CLIP"),
        ({"hidden_act": "unheard_of"}, "unheard_of"),
        ({"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight"),
        ({"intermediate_size": 32}, "mlp.down_proj.weight is 64 x 128 in its files and 64 x 32 by its config.json"),
        ({"hidden_size": "x"}, "hidden_size"),
        ({"rope_parameters": {"rope_type": "unheard_of"}}, "unheard_of"),
        ({"quantization_config": {"quant_method": "aqlm", "bits": 4}}, "quantization_config (aqlm)"),
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}},
            "custom code",
        ),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_config_that_cannot_be_loaded_is_refused(
    fields: dict[str, Any], said: str, broken: Path, recipe: dict[str, Any]
) -> None:
    change(broken, "config.json", **fields)
    assert said.lower() in refusal(lambda: load(recipe, broken, {}), broken).lower()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", BRACKETS),
        ("config.json", "{"),
        ("config.json", "[]"),
        ("generation_config.json", BRACKETS),
        ("model.safetensors", "{"),
    ],
    ids=lambda text: str(text)[:40],
)
def test_file_that_cannot_be_loaded_is_refused(name: str, text: str, broken: Path, recipe: dict[str, Any]) -> None:
    (broken / name).write_text(text)
    refusal(lambda: load(recipe, broken, {}), broken)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokenizer.json", '{"version": "1.0"}'),
        ("tokenizer.json", '{"model": {"type": "NewKind"}}'),
        ("tokenizer.json", BRACKETS),
        ("tokenizer.json", ""),
        ("tokenizer_config.json", BRACKETS),
        ("tokenizer_config.json", ""),
    ],
    ids=lambda text: str(text)[:40],
)
def test_tokenizer_that_cannot_be_loaded_is_refused(name: str, text: str, broken: Path, recipe: dict[str, Any]) -> None:
    (broken / name).write_text(text)
    refusal(lambda: load_tokenizer(Recipe.model_validate(recipe | {"model": str(broken)})), broken)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENOSPC, "No space left on device"),
        ConnectionResetError("reset by peer"),
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("CUDA error: uncorrectable ECC error encountered"),
        InputError(FailureCode.RECIPE_INVALID, "known already"),
    ],
    ids=repr,
)
def test_machine_fault_is_not_blamed_on_the_model(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, loading_errors(str(tmp_path)):
        raise error
    assert caught.value is error


def test_token_beyond_embeddings_names_its_example(recipe: dict[str, Any], dataset: Path) -> None:
    rows = dataset.read_text()
    dataset.write_text(
        rows + '{"messages": [{"role": "user", "content": "~"}, {"role": "assistant", "content": "a"}]}\n'
    )
    ready = Recipe.model_validate(recipe)
    data = load_data(ready, dataset.parent / "tokens")
    tilde = load_tokenizer(ready).get_vocab()["~"]
    highest = max(max(document.input_ids) for document in documents_of(data.train))

    def base(embeddings: int) -> LlamaForCausalLM:
        return LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=embeddings))

    check_vocabulary(ready, base(highest + 1), data)
    with pytest.raises(InputError, match=rf'example \d+ of dataset has the token ".*" with the id {highest}'):
        check_vocabulary(ready, base(highest), data)
    with pytest.raises(InputError, match="example 1 of dataset"):
        check_vocabulary(ready, base(tilde), data)


def test_untrainable_model_ends_the_run_without_traceback(
    recipe: dict[str, Any], broken: Path, run_trainer: Callable[..., Outcome]
) -> None:
    small = LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=100))
    small.save_pretrained(broken)
    outcome = run_trainer(recipe | {"model": str(broken)})
    assert outcome.exit_code == 1
    assert (outcome.failure.code, outcome.failure.param) == (FailureCode.MODEL_UNSUPPORTED, "model")
    assert "embeddings for ids below 100" in outcome.failure.message
    assert "Traceback" not in outcome.output
    assert outcome.failure.message in outcome.output
