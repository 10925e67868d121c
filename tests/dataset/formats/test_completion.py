from pathlib import Path
from typing import Any

import pytest

from dataset.example import Conversation, PlainText
from tests.dataset.example_files import HELLO, WEATHER, read_conversation, read_row, refusal_of_row


def test_completion_is_the_answer_to_its_prompt(tmp_path: Path) -> None:
    assert read_conversation(tmp_path, {"prompt": "hi", "completion": "hello"}) == Conversation(HELLO, [False, True])


def test_completion_alone_is_learned_among_messages(tmp_path: Path) -> None:
    row = {"prompt": [*HELLO, HELLO[0]], "completion": [{**HELLO[1], "weight": 0}, HELLO[1]], "tools": [WEATHER]}
    found = read_conversation(tmp_path, row)
    assert found == Conversation([*HELLO, *HELLO, HELLO[1]], [False, False, False, False, True], [WEATHER])


def test_completion_of_text_may_follow_messages(tmp_path: Path) -> None:
    assert read_conversation(tmp_path, {"prompt": HELLO[:1], "completion": "hello"}).messages == HELLO


def test_text_is_kept_to_the_letter(tmp_path: Path) -> None:
    assert read_row(tmp_path, {"text": " Once upon\n"}) == PlainText(" Once upon\n")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a", "completion": " "}, "completion is empty"),
        ({"prompt": "", "completion": "b"}, "prompt is empty"),
        ({"prompt": 3, "completion": "b"}, "prompt must be text, not 3"),
        ({"prompt": [], "completion": "b"}, "prompt must be a list of at least one message"),
        ({"prompt": [{"role": "x"}], "completion": "b"}, 'prompt[0].role is "x"'),
        ({"prompt": "a", "completion": HELLO[:1]}, "no message of completion is an assistant's"),
        ({"text": "\n"}, "text is empty"),
        ({"text": None}, "text must be text, not null"),
    ],
)
def test_bad_row_is_told_its_fault(tmp_path: Path, row: Any, words: str) -> None:
    assert words in refusal_of_row(tmp_path, row)
