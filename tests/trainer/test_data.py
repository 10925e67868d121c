import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from contract.examples import digest
from contract.failure import FailureReason, InputError
from contract.recipe import Recipe
from trainer.data import encode, load_data, load_tokenizer
from trainer.packing import Document, pack

TALK = [
    {"role": "user", "content": "Say hello, please."},
    {"role": "assistant", "content": "Hello there!"},
    {"role": "user", "content": "And now goodbye."},
    {"role": "assistant", "content": "Goodbye, and see you soon."},
]


def learned(tokenizer: PreTrainedTokenizerFast, document: Document) -> str:
    return tokenizer.decode([t for t, flag in zip(document.input_ids, document.supervised, strict=True) if flag])


def test_the_answer_and_its_end_of_turn_are_learned_and_nothing_else(tokenizer: PreTrainedTokenizerFast) -> None:
    (document,) = encode(tokenizer, [TALK[:2]])
    assert learned(tokenizer, document) == "Hello there!<|im_end|>"
    assert tokenizer.decode(document.input_ids).startswith("<|im_start|>user\nSay hello, please.<|im_end|>\n")


def test_every_answer_of_a_conversation_is_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    (document,) = encode(tokenizer, [TALK])
    assert learned(tokenizer, document) == "Hello there!<|im_end|>Goodbye, and see you soon.<|im_end|>"


@pytest.mark.parametrize("answer", ["  spaces first", "日本語 and émojis 🙂", "<|im_end|> inside", "\n\nlines\n"])
def test_odd_answers_are_learned_to_the_letter(tokenizer: PreTrainedTokenizerFast, answer: str) -> None:
    (document,) = encode(tokenizer, [[TALK[0], {"role": "assistant", "content": answer}]])
    assert learned(tokenizer, document).strip() == f"{answer}<|im_end|>".strip()


def test_the_targets_of_a_packed_row_are_the_learned_tokens_and_none_crosses_a_boundary(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    documents = encode(tokenizer, [TALK[:2], TALK])
    packed = pack(documents)
    assert packed.input_ids.shape == packed.position_ids.shape == (1, sum(packed.lengths))
    assert tokenizer.decode(packed.targets) == "".join(learned(tokenizer, document) for document in documents)
    ends = [packed.lengths[0] - 1, sum(packed.lengths) - 1]
    for row, target in zip(packed.rows.tolist(), packed.targets.tolist(), strict=True):
        if row not in ends:
            assert packed.input_ids[0, row + 1] == target
    assert packed.position_ids[0, packed.lengths[0]] == 0


def test_an_example_is_cut_at_max_length_and_dropped_when_no_answer_is_left(recipe: dict[str, Any]) -> None:
    whole = load_data(Recipe.model_validate(recipe))
    assert (whole.truncated, whole.dropped, len(whole.train)) == (0, 0, 12)
    longest = max(len(document.input_ids) for document in whole.train)

    cut = load_data(Recipe.model_validate(recipe | {"batch": {"max_length": longest - 4}}))
    assert (cut.truncated, cut.dropped, len(cut.train)) == (4, 0, 12)

    short = load_data(Recipe.model_validate(recipe | {"batch": {"max_length": 15}}))
    assert short.dropped > 0
    assert short.dropped + len(short.train) == 12
    assert all(document.targets > 0 and len(document.input_ids) <= 15 for document in short.train)


def test_a_dataset_without_an_answer_within_max_length_is_refused(recipe: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"batch\.max_length = 8") as refusal:
        load_data(Recipe.model_validate(recipe | {"batch": {"max_length": 8}}))
    assert refusal.value.failure.reason == FailureReason.DATASET_INVALID


def test_a_file_that_has_changed_since_is_refused(recipe: dict[str, Any], dataset: Path) -> None:
    recipe["dataset"] = {"path": str(dataset), "sha256": digest(dataset)}
    assert load_data(Recipe.model_validate(recipe)).train
    dataset.write_text(dataset.read_text() + "\n")
    with pytest.raises(InputError) as refusal:
        load_data(Recipe.model_validate(recipe))
    assert refusal.value.failure.reason == FailureReason.DATASET_CHANGED


def test_one_row_cannot_be_both_trained_on_and_evaluated(recipe: dict[str, Any], dataset: Path) -> None:
    dataset.write_text(json.dumps({"messages": TALK}))
    with pytest.raises(InputError, match=r"evaluation\.share"):
        load_data(Recipe.model_validate(recipe | {"evaluation": {"share": 0.5}}))


def test_a_template_that_rewrites_the_past_is_refused_by_its_row(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = copy_with_template(tokenizer, "{{ messages | length }}: {{ messages[-1]['content'] }}")
    with pytest.raises(InputError, match="row 1: the model's chat template") as refusal:
        encode(tokenizer, [TALK])
    assert refusal.value.failure.reason == FailureReason.MODEL_UNSUPPORTED


def test_a_conversation_that_the_template_refuses_is_told_by_its_row(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = copy_with_template(tokenizer, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InputError, match="row 1: the model's chat template refuses it: roles must alternate"):
        encode(tokenizer, [TALK])


def test_a_model_without_a_chat_template_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, make_model: Callable[[str], Path]
) -> None:
    copy_with_template(tokenizer, None).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no chat template") as refusal:
        load_tokenizer(str(tmp_path))
    assert refusal.value.failure.reason == FailureReason.MODEL_UNSUPPORTED


def copy_with_template(tokenizer: PreTrainedTokenizerFast, template: str | None) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token=tokenizer.eos_token, chat_template=template
    )
