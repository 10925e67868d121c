"""Rated answers, and what a file's rows must have for each method."""

from pathlib import Path
from typing import Any

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.dataset_report import check_file
from dataset.example import Conversation, RatedAnswer, rating_of
from tests.dataset.example_files import ANSWERED_ROWS, HELLO, failure, read_row, refusal, write_csv, write_lines

Row = dict[str, Any]
ROWS: dict[str, Row] = {**ANSWERED_ROWS, "an alias": {"question": "hi", "answer": "hello"}}
GOOD: tuple[Any, ...] = (True, "true", "True", 1, 1.0, "1")
BAD: tuple[Any, ...] = (False, "false", " False", 0, 0.0, "0")
PAIR = {"prompt": "hi", "chosen": "hello", "rejected": "go away"}


def ratings(path: Path, learned: Any = "ratings") -> list[bool | None]:
    return [rating_of(example) for example in read_examples(DatasetFile(path=path, learned=learned))]


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", ["label", "kto_tag"])
def test_rated_answer_is_read_in_any_format(tmp_path: Path, row: str, name: str) -> None:
    rows = [ROWS[row] | {name: value} for value in (*GOOD, *BAD)]
    examples = list(read_examples(DatasetFile(path=write_lines(tmp_path, rows), learned="ratings")))
    assert [rating_of(example) for example in examples] == [True] * len(GOOD) + [False] * len(BAD)
    for example in examples:
        assert isinstance(example, RatedAnswer)
        assert (example.conversation.messages, example.conversation.supervised) == (HELLO, [False, True])
    assert [example.where.partition(",")[0] for example in examples[:2]] == ["row 1", "row 2"]


def test_words_of_csv_are_ratings(tmp_path: Path) -> None:
    rows = [["a", "b", "1"], ["c", "d", "0"]]
    assert ratings(write_csv(tmp_path, ["prompt", "completion", "label"], *rows)) == [True, False]


def test_rating_is_one_of_the_last_answer(tmp_path: Path) -> None:
    more = [{"role": "user", "content": "bye"}, {"role": "assistant", "content": "Goodbye."}]
    found = read_row(tmp_path, {"messages": [*HELLO, *more], "label": True})
    assert isinstance(found, RatedAnswer)
    assert found.conversation.supervised == [False, False, False, True]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "has no rating; give label, true or false"),
        ({"label": None, "kto_tag": ""}, "has no rating"),
        ({"label": 3}, "label is 3; a rating is true or false"),
        ({"kto_tag": "good"}, 'kto_tag is "good"; a rating is true or false'),
        ({"label": True, "kto_tag": False}, "label and kto_tag differ"),
    ],
)
def test_bad_rating_is_refused(tmp_path: Path, row: Row, words: str) -> None:
    rows = [ROWS["messages"] | {"label": True}, ROWS["messages"] | row]
    assert refusal(write_lines(tmp_path, rows), learned="ratings").startswith(f"row 2: {words}")


def test_rating_of_several_examples_is_refused(tmp_path: Path) -> None:
    instances = [{"input": "", "output": "a"}, {"input": "", "output": "b"}]
    row = {"instruction": "hi", "instances": instances, "label": True}
    assert "has one rating and 2 examples" in refusal(write_lines(tmp_path, [row]), learned="ratings")


@pytest.mark.parametrize(("rating", "missing"), [(True, "bad"), (False, "good")])
def test_file_with_one_rating_only_is_refused(tmp_path: Path, rating: bool, missing: str) -> None:
    path = write_lines(tmp_path, [ROWS["messages"] | {"label": rating}] * 2)
    assert f"add some that are rated as {missing}" in refusal(path, learned="ratings")
    assert ratings(path, None) == [rating, rating]


def test_file_without_a_recipe_has_the_kind_of_its_first_row(tmp_path: Path) -> None:
    rated, plain = ROWS["messages"] | {"label": True}, ROWS["messages"]
    for rows, learned, problem in (
        ([plain, rated], "answers", None),
        ([plain, rated | {"label": False}], "answers", "label is false"),
        ([plain | {"label": 0}], "answers", None),
        ([plain | {"kto_tag": 0}], "ratings", None),
        ([rated, plain], "ratings", "has no rating"),
        ([PAIR, plain], "pairs", "has no pair of answers"),
        ([plain, PAIR], "answers", "a pair needs both chosen and rejected"),
        ([rated, PAIR], "ratings", "a pair needs both chosen and rejected"),
    ):
        found = check_file(DatasetFile(path=write_lines(tmp_path, rows)))
        assert found.learned == learned
        assert [each.row for each in found.errors] == ([] if problem is None else [2])
        assert problem is None or problem in found.errors[0].message


def test_file_of_pairs_refuses_one_answer_with_its_method(tmp_path: Path) -> None:
    for row in (*ROWS.values(), {"text": "Seven is a prime."}):
        message = refusal(write_lines(tmp_path, [row]), learned="pairs")
        assert message.startswith("row 1: has no pair of answers")
        assert 'with method "sft"' in message
        assert refusal(write_lines(tmp_path, [PAIR, row]), learned="pairs").startswith("row 2: has no pair of answers")


def test_file_of_ratings_refuses_pairs_with_their_method(tmp_path: Path) -> None:
    message = refusal(write_lines(tmp_path, [PAIR]), learned="ratings")
    assert message.startswith("row 1: chosen is ")
    assert 'set method to "dpo"' in message


@pytest.mark.parametrize(
    ("format", "learned", "method"),
    [
        *(("preference", "answers", "dpo"), ("preference", "ratings", "dpo")),
        *(("messages", "pairs", "sft"), ("text", "pairs", "sft"), ("text", "ratings", "sft")),
    ],
)
def test_named_format_must_have_what_is_learned(tmp_path: Path, format: str, learned: str, method: str) -> None:
    fault = failure(write_lines(tmp_path, [PAIR]), format, learned=learned)
    assert fault.param == "dataset"
    assert f'set method to "{method}"' in fault.message


@pytest.mark.parametrize("learned", ["pairs", "ratings"])
def test_plain_text_file_has_neither_pairs_nor_ratings(tmp_path: Path, learned: str) -> None:
    (tmp_path / "book.txt").write_text("Once upon a time.")
    assert 'set method to "sft"' in refusal(tmp_path / "book.txt", learned=learned)


def test_text_with_a_rating_is_refused(tmp_path: Path) -> None:
    rows = [{"text": "a", "kto_tag": True}]
    assert "is plain text" in refusal(write_lines(tmp_path, rows), learned="ratings")


def test_bad_answers_are_never_learned_as_good(tmp_path: Path) -> None:
    for value in BAD:
        message = refusal(write_lines(tmp_path, [ROWS["alpaca"] | {"kto_tag": value}]), learned="answers")
        assert 'set method to "kto"' in message
    assert isinstance(read_row(tmp_path, ROWS["alpaca"] | {"label": 0}, learned="answers"), Conversation)


def test_ratings_are_counted_and_not_unused(tmp_path: Path) -> None:
    rows = [ROWS["alpaca"] | {"label": value} for value in (1, 0, 0)]
    found = check_file(DatasetFile(path=write_lines(tmp_path, rows), learned="ratings"))
    assert (found.desirable, found.undesirable, found.duplicates, found.unused_fields) == (1, 2, 1, {})
