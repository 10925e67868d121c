import typing
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from contract.failure import FailureCode, InputError
from contract.recipe import DatasetSource, Recipe
from dataset.example import ChatMessage, conversation
from dataset.rendering.chat_templates import CHAT_TEMPLATES
from dataset.rendering.folder_tokenizer import FolderTokenizer
from dataset.rendering.tokenise import encode
from tests.trainer.templates import copy_with_template, learned
from trainer.data.tokenizer import load_tokenizer

SYSTEM: ChatMessage = {"role": "system", "content": "Be brief."}
TALK: list[ChatMessage] = [
    {"role": "user", "content": "Is 7 prime?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And 8?"},
    {"role": "assistant", "content": "No."},
]


@pytest.fixture
def base(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """A tokenizer without a chat template."""
    copy_with_template(tokenizer, None).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def load(base: Path, template: Any) -> FolderTokenizer:
    dataset = {"path": "rows.jsonl", "chat_template": template}
    return load_tokenizer(Recipe.model_validate({"model": str(base), "dataset": dataset}))


def test_recipe_names_each_template_that_there_is() -> None:
    (names, _) = typing.get_args(DatasetSource.model_fields["chat_template"].annotation)
    assert set(typing.get_args(names)) == set(CHAT_TEMPLATES)


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nIs 7 prime?<|im_end|>\n"
            "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nAnd 8?<|im_end|>\n"
            "<|im_start|>assistant\nNo.<|im_end|>\n",
        ),
        (
            "alpaca",
            "Be brief.\n\n### Instruction:\nIs 7 prime?\n\n### Response:\nYes.<|im_end|>\n\n"
            "### Instruction:\nAnd 8?\n\n### Response:\nNo.<|im_end|>\n\n",
        ),
        ("plain", "Be brief.Is 7 prime?Yes.<|im_end|>And 8?No.<|im_end|>"),
    ],
)
def test_named_template_learns_its_answers(base: Path, template: str, written: str) -> None:
    tokenizer = load(base, template)
    ((document,),) = encode(tokenizer, [conversation([SYSTEM, *TALK])])
    assert tokenizer.decode(document.input_ids) == written
    assert learned(tokenizer, document) == "Yes.<|im_end|>No.<|im_end|>"


@pytest.mark.parametrize("template", CHAT_TEMPLATES)
def test_answers_are_learned_without_a_system_message_too(base: Path, template: str) -> None:
    tokenizer = load(base, template)
    ((document,),) = encode(tokenizer, [conversation(TALK)])
    assert learned(tokenizer, document) == "Yes.<|im_end|>No.<|im_end|>"


def test_alpaca_refuses_what_it_has_no_words_for(base: Path) -> None:
    with pytest.raises(InputError, match="no words for a message of role system here"):
        encode(load(base, "alpaca"), [conversation([*TALK[:2], SYSTEM, *TALK[2:]])])


@pytest.mark.parametrize("template", CHAT_TEMPLATES)
def test_named_template_begins_like_the_tokenizer(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, template: str
) -> None:
    begins = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>"
    )
    begins.add_bos_token = True
    begins.update_post_processor()
    begins.save_pretrained(tmp_path)
    ((document,),) = encode(load(tmp_path, template), [conversation(TALK)])
    assert tokenizer.decode(document.input_ids).startswith("<|endoftext|>")
    assert tokenizer.decode(document.input_ids).count("<|endoftext|>") == 1


def test_chatml_without_its_token_is_refused(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    raw = tokenizer.backend_tokenizer.to_str().replace("<|im_end|>", "<|other|>")
    PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(raw), eos_token="<|endoftext|>"
    ).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"<\|im_end\|>") as refusal:
        load(tmp_path, "chatml")
    assert refusal.value.failure.code == FailureCode.MODEL_UNSUPPORTED
    assert refusal.value.failure.param == "dataset.chat_template"
    assert load(tmp_path, "alpaca").chat_template
