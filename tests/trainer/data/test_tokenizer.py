from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from contract.recipe import Recipe
from dataset.example import ChatMessage, conversation
from dataset.rendering.chat_templates import CHAT_TEMPLATES
from dataset.rendering.folder_tokenizer import read_tokenizer
from dataset.rendering.render import render
from tests.trainer.templates import copy_with_template
from trainer.data.tokenizer import load_tokenizer, save_tokenizer

TALK: list[ChatMessage] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  Is 7 prime? \n"},
    {"role": "assistant", "content": "Yes.\n\n"},
    {"role": "user", "content": "And 8, “八” & <b>?"},
    {"role": "assistant", "content": "No."},
]


def recipe_with(base: Path, template: Any) -> Recipe:
    dataset = {"path": "rows.jsonl", "chat_template": template}
    return Recipe.model_validate({"model": str(base), "dataset": dataset})


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("template", CHAT_TEMPLATES)
def test_saved_tokenizer_writes_what_training_wrote(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, template: str, begins: bool
) -> None:
    base = copy_with_template(tokenizer, "{{ 'the own template' }}")
    base.bos_token = "<|endoftext|>"
    base.add_bos_token = begins
    base.update_post_processor()
    base.save_pretrained(tmp_path / "base")
    recipe = recipe_with(tmp_path / "base", template)
    (tmp_path / "adapter").mkdir()
    save_tokenizer(recipe, tmp_path / "adapter")

    saved = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    ((text, _),) = render(load_tokenizer(recipe), conversation(TALK))
    assert saved.apply_chat_template(TALK, tokenize=False) == text
    ids = load_tokenizer(recipe)(text, add_special_tokens=False)["input_ids"]
    assert saved.apply_chat_template(TALK, return_dict=False) == ids
    requested = saved.apply_chat_template(TALK[:-1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(requested + "No.")


def test_saved_tokenizer_ends_where_an_answer_ended(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    base = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|endoftext|>")
    base.save_pretrained(tmp_path / "base")
    for template, end in {"chatml": "<|im_end|>", "alpaca": "<|endoftext|>"}.items():
        (tmp_path / template).mkdir()
        save_tokenizer(recipe_with(tmp_path / "base", template), tmp_path / template)
        assert AutoTokenizer.from_pretrained(tmp_path / template).eos_token == end


def test_chat_template_of_a_processor_is_read(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """As in Qwen2-VL's and LLaVA's folders."""
    copy_with_template(tokenizer, None).save_pretrained(tmp_path)
    (tmp_path / "chat_template.json").write_text('{"chat_template": "{{ messages[0].content }}"}')
    assert read_tokenizer(tmp_path).chat_template == "{{ messages[0].content }}"
    (tmp_path / "chat_template.jinja").write_text("the tokenizer's own")
    assert read_tokenizer(tmp_path).chat_template == "the tokenizer's own"


def test_saved_tokenizer_hides_the_model_path(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    save_tokenizer(recipe_with(tmp_path / "base", "alpaca"), tmp_path / "adapter")
    for file in (tmp_path / "adapter").iterdir():
        assert str(tmp_path) not in file.read_text(), file
