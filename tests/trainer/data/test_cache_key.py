"""Tokens from the cache are those that would be made: whatever they depend on is in their key."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from contract.recipe import Recipe
from tests.support.files import CHATML
from trainer.data.examples import load_data

ROW = {"a": "Ada<|im_end|>\n", "b": "Ben", "messages": [{"role": "user", "content": "Hi <|im_end|>"}]}
INPUTS: dict[str, list[Any]] = {
    "answer": ["Yes.<|endoftext|> ", "No.<|im_end|> "],
    "name": ["rows.jsonl", "rows.json"],
    "reading": [
        {},
        {"format": "text", "columns": {"text": "a"}},
        {"format": "text", "columns": {"text": "b"}},
        {"chat_template": "chatml"},
        {"chat_template": "plain"},
    ],
    "normalizer": [None, normalizers.Lowercase()],
    "pre_tokenizer": ["one", "digits"],
    "special in tokenizer.json": [False, True],
    "strips": [False, True],
    "eos_token": ["<|endoftext|>", "<|im_end|>"],
    "bos_token": [None, "<|im_start|>"],
    "extra_special_tokens": [[], ["<|im_end|>"]],
    "additional_special_tokens": [[], ["<|im_end|>"]],
    "special_tokens_map.json": [{}, {"eos_token": "<|im_start|>"}],
    "added_tokens.json": [{}, {"Yes": 900}],
    "added_tokens_decoder": [None, {"2": {"content": "<|im_end|>", "special": True, "rstrip": True}}],
    "chat_template": [CHATML, CHATML + " ", "{{ bos_token }}" + CHATML],
    "chat_template.jinja": [None, CHATML + "<|im_end|>\n"],
}


@settings(deadline=None, max_examples=4)
@given(st.fixed_dictionaries({name: st.sampled_from(values) for name, values in INPUTS.items()}))
def test_other_tokens_have_another_cache_key(tmp_path_factory: pytest.TempPathFactory, base: dict[str, Any]) -> None:
    others = [base | {name: value} for name, values in INPUTS.items() for value in values if value != base[name]]
    made: dict[str, Any] = {}
    for inputs in (base, *others):
        folder = tmp_path_factory.mktemp("world")
        data = load_data(write(folder / "model", inputs), folder / "cache")
        (key,) = (path.stem for path in (folder / "cache").glob("*.safetensors"))
        tokens = list(data.train), data.ends
        assert made.setdefault(key, tokens) == tokens, inputs


def write(folder: Path, inputs: dict[str, Any]) -> Recipe:
    """A model without weights, and a dataset."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    characters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate([*tokens, *characters])}, []))
    if inputs["normalizer"] is not None:
        backend.normalizer = inputs["normalizer"]
    use_regex = inputs["pre_tokenizer"] == "one"
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=not use_regex, use_regex=use_regex)
    special, strips = inputs["special in tokenizer.json"], inputs["strips"]
    backend.add_tokens([AddedToken(token, special=special, lstrip=strips) for token in tokens])
    folder.mkdir()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    config = {name: inputs[name] for name in INPUTS if name.endswith(("_token", "_tokens", "decoder", "template"))}
    reported = {name: value for name, value in config.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(reported))
    for name in ("special_tokens_map.json", "added_tokens.json"):
        (folder / name).write_text(json.dumps(inputs[name]))
    if inputs["chat_template.jinja"] is not None:
        (folder / "chat_template.jinja").write_text(inputs["chat_template.jinja"])
    messages = [*ROW["messages"], {"role": "assistant", "content": inputs["answer"]}]
    path = folder / inputs["name"]
    path.write_text(json.dumps(ROW | {"messages": messages}))
    return Recipe.model_validate({"model": str(folder), "dataset": {"path": str(path)} | inputs["reading"]})
