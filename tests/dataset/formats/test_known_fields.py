"""Fields of rows that known formats give a meaning to: honoured, or refused by name."""

from pathlib import Path
from typing import Any

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.dataset_report import DatasetReport, check_file
from dataset.formats.kinds import PAIR_FIELDS
from dataset.formats.known_fields import BESIDE_MESSAGES, IN_ANY_ROW, ROW_THOUGHTS, SETTINGS
from dataset.formats.template_arguments import RESERVED
from tests.dataset.example_files import (
    ANSWERED_ROWS,
    HELLO,
    WEATHER,
    read_conversation,
    read_row,
    refusal_of_row,
    write_csv,
    write_lines,
    write_parquet,
)

ROWS: dict[str, dict[str, Any]] = {**ANSWERED_ROWS, "text": {"text": "Seven is a prime."}}
WITH_MESSAGES = ("messages", "sharegpt", "prompt_completion", "prompt_completion of messages")
EMPTY: tuple[Any, ...] = (None, "", " ", [], {})


def of(folder: Path, *rows: Any) -> DatasetReport:
    path = write_lines(folder, list(rows))
    return check_file(DatasetFile(path=path))


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_unsupported_field_is_refused_by_name(tmp_path: Path, row: Any) -> None:
    for name in IN_ANY_ROW:
        for value in ("text", ["a.jpg"], [1], {"bytes": "a"}):
            message = refusal_of_row(tmp_path, row | {name: value})
            assert message.startswith(f"row 1: {name} is ")
            assert IN_ANY_ROW[name] in message
        for value in EMPTY:
            assert read_row(tmp_path, row | {name: value}) == read_row(tmp_path, row)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_field_of_a_pair_beside_an_answer_is_refused(tmp_path: Path, row: Any) -> None:
    for name in PAIR_FIELDS:
        for value in ("text", [1], {"bytes": "a"}):
            message = refusal_of_row(tmp_path, row | {name: value}, learned="answers")
            assert message.startswith(f"row 1: {name} is ")
            assert 'set method to "dpo"' in message
        for value in EMPTY:
            assert read_row(tmp_path, row | {name: value}) == read_row(tmp_path, row)


def test_row_of_preferences_alone_is_refused_by_name(tmp_path: Path) -> None:
    row: dict[str, Any] = {"prompt": "hi", "chosen": "hello", "rejected": "go away"}
    assert 'dataset.columns {"completion": "chosen"}' in refusal_of_row(tmp_path, row, learned="answers")
    row = {"input": {}, "preferred_output": HELLO[1:]}
    assert 'dataset.columns {"completion": "preferred_output"}' in refusal_of_row(tmp_path, row, learned="answers")
    row = {"chosen": HELLO, "rejected": HELLO}
    assert 'dataset.columns {"messages": "chosen"}' in refusal_of_row(tmp_path, row, learned="answers")


def test_better_answer_is_learned_where_mapped(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [{"prompt": "hi", "chosen": "hello", "rejected": "go away"}])
    (example,) = read_examples(DatasetFile(path=path, columns={"completion": "chosen"}))
    assert example == read_row(tmp_path, ROWS["prompt_completion"])


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", BESIDE_MESSAGES)
def test_field_needing_other_formats_is_refused(tmp_path: Path, row: str, name: str) -> None:
    given = ROWS[row] | {name: "text"}
    if name in ROW_THOUGHTS and row in ("prompt_completion", "alpaca", "belle"):
        assert read_conversation(tmp_path, given).messages[-1]["reasoning_content"] == "text"
    elif row in WITH_MESSAGES:
        assert refusal_of_row(tmp_path, given).startswith(f'row 1: {name} is "text"; ')
    else:
        assert read_row(tmp_path, given) == read_row(tmp_path, ROWS[row])
        assert of(tmp_path, given).unused_fields == {name: 1}


@pytest.mark.parametrize("row", ROWS)
def test_answer_rated_bad_is_refused(tmp_path: Path, row: str) -> None:
    names = ("label", "kto_tag") if row != "text" else ("kto_tag",)
    for name in names:
        message = refusal_of_row(tmp_path, ROWS[row] | {name: False}, learned="answers")
        assert f"{name} is false" in message
        assert 'set method to "kto"' in message
        assert read_row(tmp_path, ROWS[row] | {name: True}, learned="answers") == read_row(tmp_path, ROWS[row])
        assert of(tmp_path, ROWS[row] | {name: True}).unused_fields == {}


def test_rating_may_be_a_word_in_csv(tmp_path: Path) -> None:
    path = write_csv(tmp_path, ["prompt", "completion", "label"], ["a", "b", "True"], ["c", "d", "False"])
    assert [problem.row for problem in check_file(DatasetFile(path=path, learned="answers")).errors] == [2]
    found = check_file(DatasetFile(path=path))
    assert (found.learned, found.desirable, found.undesirable) == ("ratings", 1, 1)


def test_answer_under_another_name_is_rated_too(tmp_path: Path) -> None:
    row = {"prompt": "hi", "response": "go away", "label": False}
    assert "label is false" in refusal_of_row(tmp_path, row, learned="answers")


@pytest.mark.parametrize("label", [0, 3, "spam", [0, 2]])
def test_class_label_is_an_ordinary_column(tmp_path: Path, label: Any) -> None:
    for row in ("alpaca", "prompt_completion"):
        found = of(tmp_path, ROWS[row] | {"label": label})
        assert (found.examples, found.bad_rows, found.unused_fields) == (1, 0, {"label": 1})


@pytest.mark.parametrize("name", ["weight", "train", "training", "loss", "loss_weight", "loss_scale"])
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_row_marked_as_unlearned_is_refused(tmp_path: Path, row: Any, name: str) -> None:
    for value, shown in ((False, "false"), (0, "0"), (0.0, "0.0"), ("0", '"0"'), ("False", '"False"')):
        assert f"{name} is {shown}, and every row is learned" in refusal_of_row(tmp_path, row | {name: value})
    for value in (True, 1, 1.0, "1", "True", ""):
        assert read_row(tmp_path, row | {name: value}) == read_row(tmp_path, row)


@pytest.mark.parametrize("weight", [0, 0.0, 0.5, 2, "0"])
def test_row_weight_beside_messages_is_refused(tmp_path: Path, weight: Any) -> None:
    for row in WITH_MESSAGES:
        assert "weight is " in refusal_of_row(tmp_path, ROWS[row] | {"weight": weight})
    assert of(tmp_path, ROWS["alpaca"] | {"weight": 70.5}).unused_fields == {"weight": 1}


@pytest.mark.parametrize("row", ["messages", "sharegpt", "prompt_completion", "alpaca", "belle", "chinese_vicuna"])
def test_system_and_tools_beside_a_conversation_are_honoured(tmp_path: Path, row: str) -> None:
    plain = read_conversation(tmp_path, ROWS[row])
    found = read_conversation(tmp_path, ROWS[row] | {"system": "Be brief.", "tools": [WEATHER]})
    assert found.messages == [{"role": "system", "content": "Be brief."}, *plain.messages]
    assert found.supervised == [False, *plain.supervised]
    assert found.tools == [WEATHER]


def test_system_is_given_once(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO]
    expected = read_conversation(tmp_path, {"messages": messages})
    assert read_conversation(tmp_path, {"messages": messages, "system": "Be brief."}) == expected
    message = refusal_of_row(tmp_path, {"messages": messages, "system": "Be kind."})
    assert "system differs from the system message" in message


@pytest.mark.parametrize("row", [row for row in ROWS if row not in ("alpaca", "prompt_completion", "text")])
def test_unsupported_history_is_refused(tmp_path: Path, row: str) -> None:
    assert "history is " in refusal_of_row(tmp_path, ROWS[row] | {"history": [["a", "b"]]})
    assert read_row(tmp_path, ROWS[row] | {"history": []}) == read_row(tmp_path, ROWS[row])


def test_history_makes_alpaca_of_prompt_and_completion(tmp_path: Path) -> None:
    found = read_conversation(tmp_path, {"prompt": "c", "completion": "d", "history": [["a", "b"]]})
    assert [message["content"] for message in found.messages] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("row", [row for row in ROWS if row != "text"])
def test_template_arguments_come_with_the_row(tmp_path: Path, row: str) -> None:
    given = {"enable_thinking": False, "effort": "low", "other": None}
    for written in (given, '{"enable_thinking": false, "effort": "low"}'):
        found = read_conversation(tmp_path, ROWS[row] | {"chat_template_kwargs": written})
        assert found.template_arguments == {"enable_thinking": False, "effort": "low"}
        assert found.messages == read_conversation(tmp_path, ROWS[row]).messages


def test_nulls_that_parquet_adds_are_no_arguments(tmp_path: Path) -> None:
    arguments = [{"enable_thinking": False}, {"effort": "low"}, None]
    path = write_parquet(tmp_path, [ROWS["messages"] | {"chat_template_kwargs": each} for each in arguments])
    found = [example.template_arguments for example in read_examples(DatasetFile(path=path))]  # type: ignore[union-attr]
    assert found == [{"enable_thinking": False}, {"effort": "low"}, {}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        *(({name: 1}, f"chat_template_kwargs has {name}, which is set for all rows") for name in sorted(RESERVED)),
        ({"eos_token": "</s>"}, "chat_template_kwargs has eos_token"),
        ({"_x": 1}, "which is not a valid argument name"),
        ({"a b": 1}, "which is not a valid argument name"),
        ([1], "chat_template_kwargs must be an object"),
        ("{", "chat_template_kwargs is not JSON"),
        ({"a": float("nan")}, "chat_template_kwargs has nan"),
    ],
)
def test_constant_template_argument_is_refused_per_row(tmp_path: Path, arguments: Any, words: str) -> None:
    assert words in refusal_of_row(tmp_path, ROWS["messages"] | {"chat_template_kwargs": arguments})


def test_template_arguments_of_plain_text_are_refused(tmp_path: Path) -> None:
    message = refusal_of_row(tmp_path, ROWS["text"] | {"chat_template_kwargs": {"enable_thinking": False}})
    assert "chat_template_kwargs are for a chat template" in message


def test_parallel_calls_against_the_row_are_refused(tmp_path: Path) -> None:
    calls = [{"function": {"name": "a"}}, {"function": {"name": "b"}}]
    for count, forbidden in ((1, False), (2, None), (2, True)):
        messages = [HELLO[0], {"role": "assistant", "tool_calls": calls[:count]}]
        assert read_conversation(tmp_path, {"messages": messages, "parallel_tool_calls": forbidden})
    row = {"messages": [HELLO[0], {"role": "assistant", "tool_calls": calls}], "parallel_tool_calls": False}
    assert "parallel_tool_calls is false" in refusal_of_row(tmp_path, row)


@pytest.mark.parametrize("placeholder", ["<image>", "<video>", "<audio>"])
def test_placeholder_beside_a_field_of_media_is_refused(tmp_path: Path, placeholder: str) -> None:
    row = {"prompt": f"{placeholder} What is it?", "completion": "A tag."}
    assert read_row(tmp_path, row)
    assert f"a text has {placeholder}" in refusal_of_row(tmp_path, row | {"images": []})
    assert f"a text has {placeholder}" in refusal_of_row(tmp_path, {"text": placeholder, "images": None})


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_field_without_a_meaning_is_unused_and_counted(tmp_path: Path, row: Any) -> None:
    rows = [row | {"id": 7, "source": ""}, row | {"id": 8, "source": "web"}, row]
    assert of(tmp_path, *rows).unused_fields == {"id": 2, "source": 1}


def test_message_fields_are_unused_per_row(tmp_path: Path) -> None:
    asks, answers = ({**message, "id": 1, "markdown": None} for message in HELLO)
    assert of(tmp_path, {"messages": [asks, answers]}).unused_fields == {"messages[].id": 1}
    assert of(tmp_path, {"prompt": [asks], "completion": [answers]}).unused_fields == {
        "prompt[].id": 1,
        "completion[].id": 1,
    }
    turns = [{"from": "human", "value": "hi", "id": 1}, {"from": "gpt", "value": "hello", "lang": "en"}]
    assert of(tmp_path, {"conversations": turns}).unused_fields == {"conversations[].id": 1, "conversations[].lang": 1}


def test_no_more_than_fifty_unused_fields_are_named(tmp_path: Path) -> None:
    rows = [ROWS["text"] | {f"column {n}": 1, "x" * 500: 1} for n in range(60)]
    found = of(tmp_path, *rows).unused_fields
    assert len(found) == 50
    assert max(map(len, found)) == 40


def test_pair_that_the_recipe_has_decided_is_unused(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [{"prompt": "hi", "chosen": "hello", "rejected": "go away"}])
    assert check_file(DatasetFile(path=path, columns={"completion": "chosen"})).unused_fields == {"rejected": 1}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("name", SETTINGS)
def test_setting_of_another_trainer_is_refused_where_it_matters(tmp_path: Path, row: str, name: str) -> None:
    harmful: tuple[Any, ...] = (True, "True", 1)
    for value in harmful:
        assert f"{name} is " in refusal_of_row(tmp_path, ROWS[row] | {name: value})
    harmless: tuple[Any, ...] = (False, "false", None)
    for value in harmless:
        assert read_row(tmp_path, ROWS[row] | {name: value}) == read_row(tmp_path, ROWS[row])
        assert of(tmp_path, ROWS[row] | {name: value}).unused_fields == {}


def test_tool_choice_other_than_auto_is_refused(tmp_path: Path) -> None:
    for name in ("tool_choice", "function_call"):
        for value in ("none", "required", {"type": "function", "function": {"name": "f"}}):
            assert f"{name} is " in refusal_of_row(tmp_path, ROWS["messages"] | {name: value})
        assert of(tmp_path, ROWS["messages"] | {name: "auto"}).unused_fields == {}
        assert of(tmp_path, ROWS["alpaca"] | {name: "none"}).unused_fields == {name: 1}
