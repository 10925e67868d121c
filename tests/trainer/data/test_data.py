import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from contract.failure import FailureCode, InputError
from contract.recipe import Recipe
from dataset.dataset_reader import file_sha256
from dataset.example import conversation
from dataset.rendering.tokenise import encode
from tests.trainer.adapters import documents_of
from tests.trainer.templates import FORGETFUL, LONG_TALK, THOUGHTFUL_TALK, copy_with_template, learned
from trainer.data.examples import load_data
from trainer.data.packing import pack
from trainer.micro_batch import worst_case_items
from trainer.model.base_model import load_model


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def test_only_answers_and_their_ends_are_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    ((document,),) = encode(tokenizer, [conversation(LONG_TALK[:2])])
    assert learned(tokenizer, document) == "Hello there!<|im_end|>"
    assert tokenizer.decode(document.input_ids).startswith("<|im_start|>user\nSay hello, please.<|im_end|>\n")


def test_every_answer_of_a_conversation_is_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    ((document,),) = encode(tokenizer, [conversation(LONG_TALK)])
    assert learned(tokenizer, document) == "Hello there!<|im_end|>Goodbye, and see you soon.<|im_end|>"


@pytest.mark.parametrize("answer", ["  spaces first", "日本語 and émojis 🙂", "<|im_end|> inside", "\n\nlines\n"])
def test_odd_answers_are_learned_to_the_letter(tokenizer: PreTrainedTokenizerFast, answer: str) -> None:
    ((document,),) = encode(tokenizer, [conversation([LONG_TALK[0], {"role": "assistant", "content": answer}])])
    assert learned(tokenizer, document).strip() == f"{answer}<|im_end|>".strip()


def test_packed_targets_never_cross_a_boundary(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    documents = [
        document
        for row in encode(tokenizer, [conversation(LONG_TALK[:2]), conversation(LONG_TALK)])
        for document in row
    ]
    packed = pack(documents)
    assert packed.input_ids.shape == packed.position_ids.shape == (1, sum(packed.lengths))
    assert tokenizer.decode(packed.targets) == "".join(learned(tokenizer, document) for document in documents)
    ends = [packed.lengths[0] - 1, sum(packed.lengths) - 1]
    for row, target in zip(packed.rows.tolist(), packed.targets.tolist(), strict=True):
        if row not in ends:
            assert packed.input_ids[0, row + 1] == target
    assert packed.position_ids[0, packed.lengths[0]] == 0


def test_overlong_example_is_cut_or_dropped(recipe: dict[str, Any], cache: Path) -> None:
    whole = load_data(Recipe.model_validate(recipe), cache)
    assert (whole.truncated, whole.dropped, len(whole.train)) == (0, 0, 12)
    longest = max(len(document.input_ids) for document in documents_of(whole.train))

    cut = load_data(Recipe.model_validate(recipe | {"batch": {"max_length": longest - 4}}), cache)
    assert (cut.truncated, cut.dropped, len(cut.train)) == (4, 0, 12)

    short = load_data(Recipe.model_validate(recipe | {"batch": {"max_length": 15}}), cache)
    assert short.dropped > 0
    assert short.dropped + len(short.train) == 12
    assert all(document.targets > 0 and len(document.input_ids) <= 15 for document in documents_of(short.train))


def test_example_is_cut_at_the_position_table(
    recipe: dict[str, Any], dataset: Path, cache: Path, make_model: Callable[[str], Path]
) -> None:
    long = [LONG_TALK[0], {"role": "assistant", "content": "Hello there! " * 20}]
    late = [{"role": "user", "content": "Say hello, please. " * 20}, LONG_TALK[1]]
    dataset.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in (long, LONG_TALK[:2], late)))
    small = Recipe.model_validate(recipe | {"model": str(make_model("gpt2 of 64 positions"))})
    data = load_data(small, cache)
    assert (data.max_length, data.truncated, data.dropped) == (64, 1, 1)
    assert [len(document.input_ids) for document in documents_of(data.train)] == [64, 17]
    module = load_model(small, torch.float32, torch.device("cpu"))
    assert module(pack(worst_case_items(data.train, 2)))[0].isfinite()

    # Any length does where the positions are turned, whatever the configuration says.
    assert load_data(Recipe.model_validate(recipe), cache).max_length == 2048
    dataset.write_text(json.dumps({"messages": late}))
    with pytest.raises(InputError, match="in the 64 positions that the model has"):
        load_data(small, cache)


def test_dataset_without_a_fitting_answer_is_refused(recipe: dict[str, Any], cache: Path) -> None:
    with pytest.raises(InputError, match=r"batch\.max_length = 8") as refusal:
        load_data(Recipe.model_validate(recipe | {"batch": {"max_length": 8}}), cache)
    assert refusal.value.failure.code == FailureCode.DATASET_INVALID


def test_file_that_has_changed_since_is_refused(recipe: dict[str, Any], dataset: Path, cache: Path) -> None:
    recipe["dataset"] = {"path": str(dataset), "sha256": file_sha256(dataset)}
    assert load_data(Recipe.model_validate(recipe), cache).train
    dataset.write_text(dataset.read_text() + "\n")
    with pytest.raises(InputError) as refusal:
        load_data(Recipe.model_validate(recipe), cache)
    assert refusal.value.failure.code == FailureCode.DATASET_CHANGED


def test_single_row_cannot_train_and_evaluate(recipe: dict[str, Any], dataset: Path, cache: Path) -> None:
    dataset.write_text(json.dumps({"messages": LONG_TALK}))
    with pytest.raises(InputError, match=r"evaluation\.fraction"):
        load_data(Recipe.model_validate(recipe | {"evaluation": {"fraction": 0.5}}), cache)


def test_evaluation_file_leaves_the_dataset_whole(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text("question,answer\nSay hello.,hello\nSay bye.,bye\n")
    held_out = {"path": str(path), "columns": {"prompt": "question", "completion": "answer"}}
    whole = load_data(Recipe.model_validate(recipe), cache)
    data = load_data(Recipe.model_validate(recipe | {"evaluation": {"dataset": held_out}}), cache)
    assert list(data.train) == list(whole.train)
    assert len(data.evaluation) == 2
    short = {"batch": {"max_length": 15}, "evaluation": {"dataset": recipe["dataset"]}}
    cut = load_data(Recipe.model_validate(recipe | short), cache)
    assert list(cut.train) == list(cut.evaluation)
    assert cut.dropped == 2 * (12 - len(cut.train))


def test_evaluation_file_errors_name_that_file(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "held_out.jsonl"
    recipe["evaluation"] = {"dataset": str(path)}
    for content, words in (
        ("{}\n", r"evaluation\.dataset: row 1: "),
        (None, r"evaluation\.dataset: the file held_out"),
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        with pytest.raises(InputError, match=words) as refusal:
            load_data(Recipe.model_validate(recipe), cache)
        assert refusal.value.failure.param == "evaluation.dataset"


def test_forgetful_template_makes_a_document_per_answer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    forgetful = copy_with_template(tokenizer, FORGETFUL)
    ((first, second),) = encode(forgetful, [conversation(THOUGHTFUL_TALK)])
    assert learned(tokenizer, first) == "<think>A greeting.</think>Hello there!<|im_end|>"
    assert learned(tokenizer, second) == "<think>They leave.</think>Goodbye, and see you soon.<|im_end|>"
    for document, messages in ((first, THOUGHTFUL_TALK[:2]), (second, THOUGHTFUL_TALK)):
        assert tokenizer.decode(document.input_ids) == forgetful.apply_chat_template(messages, tokenize=False)
    assert "A greeting." not in tokenizer.decode(second.input_ids)


def test_forgetful_template_without_thoughts_makes_one_document(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert encode(copy_with_template(tokenizer, FORGETFUL), [conversation(LONG_TALK)]) == encode(
        tokenizer, [conversation(LONG_TALK)]
    )


def test_answers_of_one_conversation_stay_together(
    tokenizer: PreTrainedTokenizerFast, recipe: dict[str, Any], model: Path, dataset: Path, tmp_path: Path, cache: Path
) -> None:
    dataset.write_text("".join(f"{json.dumps({'messages': THOUGHTFUL_TALK})}\n" for _ in range(4)))
    shutil.copytree(model, tmp_path / "forgetful")
    copy_with_template(tokenizer, FORGETFUL).save_pretrained(tmp_path / "forgetful")
    recipe |= {"model": str(tmp_path / "forgetful"), "evaluation": {"fraction": 0.25}}
    data = load_data(Recipe.model_validate(recipe), cache)
    assert (len(data.train), len(data.evaluation)) == (6, 2)
    assert data.evaluation[0] != data.evaluation[1]
    recipe["batch"] = {
        "max_length": data.evaluation[1].documents[0].supervised.index(True)
    }  # nothing of the second answers
    cut = load_data(Recipe.model_validate(recipe), cache)
    assert (len(cut.train), len(cut.evaluation), cut.truncated, cut.dropped) == (3, 1, 4, 0)


def test_answer_that_is_not_supervised_is_not_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    ((document,),) = encode(tokenizer, [conversation(LONG_TALK, left_out=frozenset({1}))])
    assert learned(tokenizer, document) == "Goodbye, and see you soon.<|im_end|>"
    assert "Hello there!" in tokenizer.decode(document.input_ids)


def test_unreadable_changed_file_counts_as_changed(recipe: dict[str, Any], dataset: Path, cache: Path) -> None:
    recipe["dataset"] = {"path": str(dataset), "sha256": file_sha256(dataset)}
    dataset.write_text("{")
    with pytest.raises(InputError, match="changed since the job was accepted"):
        load_data(Recipe.model_validate(recipe), cache)


def test_columns_and_format_are_the_recipe_s(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text("question,answer\nSay hello.,hello\n")
    recipe["dataset"] = {"path": str(path), "columns": {"prompt": "question", "completion": "answer"}}
    assert len(load_data(Recipe.model_validate(recipe), cache).train) == 1


def test_plain_text_is_learned_whole_and_ends_once(
    tokenizer: PreTrainedTokenizerFast, recipe: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    text = "text\nseven, a prime.\n" * 400
    path = tmp_path / ("0" * 64)  # as an upload lies
    path.write_text(text)
    recipe["dataset"] = {"path": str(path), "filename": "book.txt"}
    data = load_data(Recipe.model_validate(recipe | {"batch": {"max_length": 2048}}), cache)
    assert (data.truncated, data.dropped) == (0, 0)
    written = [tokenizer.decode(document.input_ids) for document in documents_of(data.train)]
    assert len(written) > 3
    assert "".join(written) == text + str(tokenizer.eos_token)


def test_each_instance_of_a_row_is_an_example(recipe: dict[str, Any], dataset: Path, cache: Path) -> None:
    instances = [{"input": str(n), "output": str(2 * n)} for n in range(4)]
    dataset.write_text(json.dumps({"instruction": "Double", "instances": instances}))
    data = load_data(Recipe.model_validate(recipe | {"evaluation": {"fraction": 0.25}}), cache)
    assert (len(data.train), len(data.evaluation)) == (3, 1)


def test_other_cuts_and_splits_share_cached_tokens(recipe: dict[str, Any], cache: Path) -> None:
    load_data(Recipe.model_validate(recipe), cache)
    (file,) = cache.glob("*.safetensors")
    made = file.stat().st_ino
    load_data(Recipe.model_validate(recipe | {"batch": {"max_length": 40}, "evaluation": {"fraction": 0.5}}), cache)
    assert [path.stat().st_ino for path in cache.glob("*.safetensors")] == [made]


@pytest.mark.parametrize("other", ["content", "format", "columns", "name", "vocabulary", "special tokens", "template"])
def test_changed_inputs_are_tokenised_anew(
    tokenizer: PreTrainedTokenizerFast, recipe: dict[str, Any], cache: Path, tmp_path: Path, other: str
) -> None:
    row = {"text": "input,output\nyes,no"}
    path = tmp_path / "rows.jsonl"
    recipe["dataset"] = {"path": str(path), "format": "text"}
    if other in ("name", "columns"):
        path.write_text("input,output\nyes,no\n")
        path = path.rename(tmp_path / "rows.csv")
        recipe["dataset"] = {"path": str(path), "format": "text", "columns": {"text": "input"}}
    else:
        path.write_text(json.dumps(row))
    load_data(Recipe.model_validate(recipe), cache)

    changed = copy_with_template(tokenizer, tokenizer.chat_template)
    match other:
        case "content":
            path.write_text(f"{json.dumps(row)}\n" * 2)
        case "format":
            recipe["dataset"]["format"] = "auto"
        case "columns":
            recipe["dataset"]["columns"] = {"text": "output"}
        case "name":
            path = path.rename(tmp_path / "rows.jsonl")
            recipe["dataset"]["path"] = str(path)
        case "vocabulary":
            changed.add_tokens(["yes"])
        case "special tokens":
            changed.eos_token = "<|endoftext|>"
        case "template":
            changed.chat_template += " "
    if other in ("vocabulary", "special tokens", "template"):
        shutil.copytree(recipe["model"], tmp_path / "changed")
        changed.save_pretrained(tmp_path / "changed")
        recipe["model"] = str(tmp_path / "changed")
    if other == "name":
        # What was read as CSV is no JSON: it is not taken from the cache.
        with pytest.raises(InputError, match="not JSON"):
            load_data(Recipe.model_validate(recipe), cache)
    else:
        load_data(Recipe.model_validate(recipe), cache)
        assert len(list(cache.glob("*.safetensors"))) == 2


def test_missing_file_is_reported_despite_cached_tokens(recipe: dict[str, Any], dataset: Path, cache: Path) -> None:
    load_data(Recipe.model_validate(recipe), cache)
    dataset.unlink()
    with pytest.raises(InputError, match=r"rows\.jsonl cannot be read: No such file"):
        load_data(Recipe.model_validate(recipe), cache)


def test_failed_tokenisation_is_not_cached(recipe: dict[str, Any], dataset: Path, cache: Path) -> None:
    good = dataset.read_text()
    dataset.write_text(good + "{}\n")
    for _ in range(2):
        with pytest.raises(InputError, match="row 13"):
            load_data(Recipe.model_validate(recipe), cache)
    dataset.write_text(good)
    assert len(load_data(Recipe.model_validate(recipe), cache).train) == 12
