"""What a message or a turn says of itself: whether it is learned, and its thought."""

from pathlib import Path
from typing import Any

import pytest

from dataset.formats.turns import REASONING, REFUSED, WEIGHTS
from tests.dataset.example_files import HELLO, read_conversation, refusal_of_row

LEARN, LEAVE_OUT = (True, 1, 1.0, None), (False, 0, 0.0)


def openai(**fields: Any) -> dict[str, Any]:
    return {"messages": [HELLO[0], {**HELLO[1], **fields}, *HELLO]}


def sharegpt(**fields: Any) -> dict[str, Any]:
    asks, answers = {"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}
    return {"conversations": [asks, {**answers, **fields}, asks, answers]}


def llama_factory(**fields: Any) -> dict[str, Any]:
    asks = {"role": "user", "content": [{"type": "text", "value": "hi"}], "loss_weight": 0.0}
    answers = {"role": "assistant", "content": [{"type": "text", "value": "hello"}]}
    return {"messages": [asks, {**answers, **fields}, asks, {**answers, "loss_weight": 1.0}]}


FORMATS = [openai, sharegpt, llama_factory]


@pytest.mark.parametrize("row", FORMATS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_weight_decides_whether_an_answer_is_learned(tmp_path: Path, row: Any, name: str) -> None:
    for weight in LEARN:
        assert read_conversation(tmp_path, row(**{name: weight})).supervised == [False, True, False, True]
    for weight in LEAVE_OUT:
        assert read_conversation(tmp_path, row(**{name: weight})).supervised == [False, False, False, True]


@pytest.mark.parametrize("row", FORMATS)
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("weight", [0.5, -1, 2, "0", "false", [], {}])
def test_any_other_weight_is_refused(tmp_path: Path, row: Any, name: str, weight: Any) -> None:
    message = refusal_of_row(tmp_path, row(**{name: weight}))
    assert f"[1].{name} is " in message
    assert "1 or true learns an answer" in message


@pytest.mark.parametrize("row", FORMATS)
def test_weights_that_disagree_are_refused(tmp_path: Path, row: Any) -> None:
    message = refusal_of_row(tmp_path, row(weight=1, train=False))
    assert "[1].weight and not by " in message
    assert "[1].train;" in message


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{**HELLO[0], "train": True}, HELLO[1]]},
        {"conversations": [{"from": "human", "value": "hi", "train": True}, {"from": "gpt", "value": "hello"}]},
    ],
)
def test_question_that_is_to_be_learned_is_refused(tmp_path: Path, row: Any) -> None:
    assert "[0].train is true, and a message of role user is never learned" in refusal_of_row(tmp_path, row)


@pytest.mark.parametrize("weights", [[None, 0], [1, 0], [0, None]])
def test_partly_learned_answer_is_refused(tmp_path: Path, weights: list[Any]) -> None:
    parts = [{"type": "text", "text": "hello", "train": weight} for weight in weights]
    message = refusal_of_row(tmp_path, openai(content=parts))
    assert "messages[1] is to be learned by messages[1].content[" in message


@pytest.mark.parametrize("weights", [[0, False], [0, 0.0]])
def test_answer_with_zero_weights_is_not_learned(tmp_path: Path, weights: list[Any]) -> None:
    parts = [{"type": "text", "text": "hello", "weight": weight} for weight in weights]
    assert read_conversation(tmp_path, openai(content=parts)).supervised == [False, False, False, True]


@pytest.mark.parametrize("row", FORMATS)
@pytest.mark.parametrize("name", REASONING)
def test_thought_has_three_names(tmp_path: Path, row: Any, name: str) -> None:
    found = read_conversation(tmp_path, row(**{name: "Be polite."}))
    assert found.messages[1] == {"role": "assistant", "content": "hello", "reasoning_content": "Be polite."}
    assert found == read_conversation(tmp_path, row(**dict.fromkeys(REASONING, "Be polite.")))


@pytest.mark.parametrize("row", FORMATS)
@pytest.mark.parametrize("thought", [None, "", " \n"])
def test_empty_thought_is_none(tmp_path: Path, row: Any, thought: Any) -> None:
    assert read_conversation(tmp_path, row(reasoning_content=thought)) == read_conversation(tmp_path, row())


@pytest.mark.parametrize("row", FORMATS)
def test_thoughts_that_differ_are_refused(tmp_path: Path, row: Any) -> None:
    assert "reasoning_content and thinking differ" in refusal_of_row(tmp_path, row(reasoning_content="a", thinking="b"))
    assert "[1].thinking must be text" in refusal_of_row(tmp_path, row(thinking=True))


def test_thought_of_a_question_is_refused(tmp_path: Path) -> None:
    row = {"messages": [{**HELLO[0], "reasoning": "Ask."}, HELLO[1]]}
    assert "messages[0].reasoning_content belongs to an assistant" in refusal_of_row(tmp_path, row)
    row = {"conversations": [{"from": "human", "value": "hi", "thinking": "Ask."}, {"from": "gpt", "value": "hello"}]}
    assert "conversations[0].reasoning_content belongs to an assistant" in refusal_of_row(tmp_path, row)


@pytest.mark.parametrize("content", [None, ""])
def test_answer_may_be_a_thought_alone(tmp_path: Path, content: Any) -> None:
    message = {"role": "assistant", "content": content, "reasoning_content": "Say nothing."}
    found = read_conversation(tmp_path, {"messages": [HELLO[0], message]})
    assert found.messages[1] == {**message, "content": ""}
    assert found.supervised == [False, True]


def test_thought_may_be_a_part_of_the_content(tmp_path: Path) -> None:
    parts = [{"type": "thinking", "thinking": "Be polite."}, {"type": "text", "text": "hello"}]
    expected = read_conversation(tmp_path, openai(reasoning_content="Be polite."))
    assert read_conversation(tmp_path, openai(content=parts)) == expected


@pytest.mark.parametrize("row", FORMATS)
@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_turn_field_is_refused_by_name(tmp_path: Path, row: Any, name: str) -> None:
    given: list[Any] = ["text", {"a": 1}, [1], True]
    for value in given:
        message = refusal_of_row(tmp_path, row(**{name: value}))
        assert f"[1].{name} is " in message
        assert REFUSED[name] in message
    empty: list[Any] = [None, "", [], {}]
    for value in empty:
        assert read_conversation(tmp_path, row(**{name: value})) == read_conversation(tmp_path, row())


def test_prefix_that_is_none_is_taken(tmp_path: Path) -> None:
    assert read_conversation(tmp_path, openai(prefix=False)) == read_conversation(tmp_path, openai())


def test_answer_in_another_channel_is_refused(tmp_path: Path) -> None:
    assert read_conversation(tmp_path, openai(channel="final")) == read_conversation(tmp_path, openai())
    assert 'messages[1].channel is "analysis"' in refusal_of_row(tmp_path, openai(channel="analysis"))


def test_name_of_a_speaker_is_for_the_template(tmp_path: Path) -> None:
    for row in (openai(name="Ann"), sharegpt(name="Ann")):
        assert read_conversation(tmp_path, row).messages[1] == {**HELLO[1], "name": "Ann"}


def test_calls_of_a_sharegpt_turn_are_refused(tmp_path: Path) -> None:
    message = refusal_of_row(tmp_path, sharegpt(tool_calls=[{"function": {"name": "f"}}]))
    assert "conversations[1].tool_calls: give calls as a turn from function_call" in message
