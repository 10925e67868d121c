"""The pieces of an answer's text are the whole text, up to a stop string."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataset.rendering.folder_tokenizer import FolderTokenizer, read_tokenizer
from inference.text import AnswerText
from tests.support.files import write_tokenizer

TEXTS = st.text("ab 中é", max_size=20)
STOPS = st.lists(st.text("ab 中", min_size=1, max_size=4), max_size=3)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FolderTokenizer:
    """Of bytes: a letter may take several tokens."""
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return read_tokenizer(folder)


@given(text=TEXTS, stop=STOPS)
@example(text="aba", stop=["b", "aba"])
def test_pieces_are_the_text_before_a_stop(tokenizer: FolderTokenizer, text: str, stop: list[str]) -> None:
    answer = AnswerText(tokenizer, stop)
    pieces = []
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        pieces.append(answer.add(token))
        if answer.stopped:
            break
    pieces.append(answer.end())
    whole = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])
    found = [(whole.index(word) + len(word), whole.index(word)) for word in stop if word in whole]
    assert answer.stopped == bool(found)
    assert "".join(pieces) == (whole[: min(found)[1]] if found else whole)


@given(before=st.text("ab< ", max_size=8), after=st.text("ab<", max_size=8))
def test_text_from_a_call_on_is_held(tokenizer: FolderTokenizer, before: str, after: str) -> None:
    answer = AnswerText(tokenizer, [], hold_from="<c>")
    tokens = tokenizer(f"{before}<c>{after}", add_special_tokens=False)["input_ids"]
    shown = "".join([*map(answer.add, tokens), answer.end()])
    whole = tokenizer.decode(tokens)
    assert shown == whole.partition("<c>")[0]
    assert shown + answer.held == whole
