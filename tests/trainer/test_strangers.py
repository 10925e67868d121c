"""What a stranger may have put beside a model or an adapter to be run where it is loaded: code, and pickles."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from contract.failure import FailureCode, InputError
from contract.recipe import Recipe
from tests.trainer.adapters import CPU, load, save
from trainer.data.tokenizer import load_tokenizer
from trainer.model.base_model import load_model, max_positions
from trainer.tools import answer
from trainer.tools.merge import merge

CLASSES = {
    "AutoConfig": "stranger.StrangerConfig",
    "AutoModelForCausalLM": "stranger.StrangerForCausalLM",
    "AutoTokenizer": [None, "stranger.StrangerTokenizer"],
}


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(model, tmp_path / "model")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Is there once a stranger's code has run."""
    return tmp_path / "ran"


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def add_code(folder: Path, marker: Path) -> None:
    """Has the model's configs name classes of a file beside them, as models of the hub do."""
    (folder / "stranger.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    change(folder / "config.json", auto_map=CLASSES)
    change(folder / "tokenizer_config.json", auto_map=CLASSES)


def make_unknown(folder: Path) -> None:
    """Of an architecture that transformers has not."""
    change(folder / "config.json", model_type="stranger")
    change(folder / "tokenizer_config.json", tokenizer_class="StrangerTokenizer")


class Bomb:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def arm(weights: Path, marker: Path) -> None:
    """Puts a pickle of the same tensors, and a bomb, in the place of a file of safetensors."""
    pickled = weights.with_name({"model": "pytorch_model", "adapter_model": "adapter_model"}[weights.stem] + ".bin")
    torch.save({**load_file(weights), "bomb": Bomb(marker)}, pickled)
    weights.unlink()
    torch.load(pickled, weights_only=False)
    marker.unlink()  # It does go off.


def recipe_of(recipe: dict[str, Any], folder: Path, **fields: Any) -> Recipe:
    return Recipe.model_validate(recipe | {"model": str(folder)} | fields)


LOADERS: dict[str, Callable[[Recipe], Any]] = {
    "the model": lambda recipe: load_model(recipe, torch.float32, CPU),
    "its positions": lambda recipe: max_positions(recipe.model),
    "a merge": lambda recipe: merge(recipe, Path(recipe.model).with_name("merged")),
}


@pytest.mark.parametrize("what", LOADERS)
def test_model_with_code_is_refused_and_not_run(what: str, recipe: dict[str, Any], folder: Path, marker: Path) -> None:
    add_code(folder, marker)
    make_unknown(folder)
    with pytest.raises(InputError, match="custom code") as refusal:
        LOADERS[what](recipe_of(recipe, folder))
    assert (refusal.value.failure.code, refusal.value.failure.param) == (FailureCode.MODEL_UNSUPPORTED, "model")
    assert not marker.exists()


def test_model_with_an_adapter_is_refused_unloaded(recipe: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    adapter = save(load(recipe, folder, {}), tmp_path / "adapter")
    change(adapter / "adapter_config.json", base_model_name_or_path=str(elsewhere))
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    with pytest.raises(InputError, match="has an adapter in it"):
        load_model(recipe_of(recipe, folder), torch.float32, CPU)


def test_code_beside_a_known_model_is_not_run(recipe: dict[str, Any], folder: Path, marker: Path) -> None:
    add_code(folder, marker)
    load_model(recipe_of(recipe, folder), torch.float32, CPU)
    make_unknown(folder)
    assert load_tokenizer(recipe_of(recipe, folder)).get_vocab()
    assert not marker.exists()


def test_answer_never_offers_to_run_code(folder: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_code(folder, marker)
    make_unknown(folder)
    monkeypatch.setattr("sys.argv", ["trainer.tools.answer", str(folder), "Who is there?"])
    # transformers asks on the terminal, and the answer would be yes.
    monkeypatch.setattr("builtins.input", lambda question: "y")
    with pytest.raises(ValueError, match="custom code"):
        answer.main()
    assert not marker.exists()


@pytest.mark.parametrize("what", ["the model", "a merge"])
def test_pickled_weights_are_refused(what: str, recipe: dict[str, Any], folder: Path, marker: Path) -> None:
    arm(folder / "model.safetensors", marker)
    with pytest.raises(InputError, match=r"no file named model\.safetensors") as refusal:
        LOADERS[what](recipe_of(recipe, folder))
    assert (refusal.value.failure.code, refusal.value.failure.param) == (FailureCode.MODEL_UNSUPPORTED, "model")
    assert not marker.exists()


@pytest.mark.parametrize("what", ["the model", "a merge"])
def test_pickled_adapter_is_refused(
    what: str, recipe: dict[str, Any], folder: Path, marker: Path, tmp_path: Path
) -> None:
    adapter = save(load(recipe, folder, {}), tmp_path / "adapter")
    arm(adapter / "adapter_model.safetensors", marker)
    with pytest.raises(InputError, match=r"adapter_model\.bin is a pickle, which is never loaded"):
        LOADERS[what](recipe_of(recipe, folder, adapter={"start_from": str(adapter)}))
    assert not marker.exists()
