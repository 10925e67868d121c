"""Which token ends the learned answers, whatever a tokenizer's folder says about pad, end of text and end of turn."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from contract.events import LogEvent
from contract.model.folder import loaded_base
from contract.recipe import Recipe
from tests.trainer.adapters import load, train
from tests.trainer.in_process_trainer import train_here
from tests.trainer.tiny_models import SIZES
from trainer.data.examples import load_data
from trainer.data.tokenizer import load_tokenizer

NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """A model whose tokenizer marks its end of turn as special in tokenizer.json, and names no token."""
    folder = shutil.copytree(model, tmp_path / "model")
    change(folder / "tokenizer_config.json", **dict.fromkeys(NAMED))
    change(folder / "config.json", eos_token_id=None, pad_token_id=None)
    change(folder / "generation_config.json", eos_token_id=None, pad_token_id=None)
    return folder


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def unmark(folder: Path, token: str) -> None:
    """Makes it an added token like any word."""
    read = json.loads((folder / "tokenizer.json").read_text())
    for added in read["added_tokens"]:
        added["special"] = added["special"] and added["content"] != token
    (folder / "tokenizer.json").write_text(json.dumps(read))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for added in config.get("added_tokens_decoder", {}).values():
        added["special"] = added["special"] and added["content"] != token
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def ends(recipe: dict[str, Any], folder: Path) -> list[str]:
    ready = Recipe.model_validate(recipe | {"model": str(folder)})
    tokenizer = load_tokenizer(ready)
    return [tokenizer.decode([end]) for end in load_data(ready, folder.parent / "tokens").ends]


def test_tokenizer_needs_neither_pad_nor_end_of_text(recipe: dict[str, Any], folder: Path) -> None:
    assert ends(recipe, folder) == ["<|im_end|>"]


@pytest.mark.parametrize("where", ["generation_config.json", "config.json", "text_config"])
def test_one_of_several_end_tokens_ends_the_answers(recipe: dict[str, Any], folder: Path, where: str) -> None:
    unmark(folder, "<|im_end|>")
    assert ends(recipe, folder) == []
    fields = {"eos_token_id": [0, 2]}
    if where == "text_config":
        change(folder / "config.json", text_config=fields)
    else:
        change(folder / where, **fields)
    assert ends(recipe, folder) == ["<|im_end|>"]


@pytest.mark.slow
def test_answers_without_an_end_token_are_warned_of(
    recipe: dict[str, Any], folder: Path, tmp_path: Path, cache: Path
) -> None:
    unmark(folder, "<|im_end|>")
    done = train_here(recipe | {"model": str(folder), "schedule": {"max_steps": 1}}, tmp_path / "run", cache)
    warnings = [event.message for event in done.events if isinstance(event, LogEvent) and event.level == "warning"]
    assert [message for message in warnings if "no answer ends with a special token" in message]


def test_more_embeddings_than_tokens_are_trained(recipe: dict[str, Any], folder: Path) -> None:
    """Vocabularies are padded to a multiple of 64 or 128."""
    LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=1024)).save_pretrained(folder)
    assert loaded_base(folder).shapes["model.embed_tokens.weight"] == [1024, 64]
    losses = train(load(recipe, folder, {}), recipe)
    assert losses[-1] < losses[0]
