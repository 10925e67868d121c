import json
from pathlib import Path
from typing import Any

import pytest

from contract.failure import InputError
from dataset import preview as shown
from dataset.dataset_file import DatasetFile
from dataset.preview import Preview, RenderedText, preview
from dataset.rendering.folder_tokenizer import read_tokenizer
from tests.support.files import write_tokenizer

TALK = {
    "messages": [
        {"role": "user", "content": "é?"},
        {"role": "assistant", "content": "八!"},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "no"},
    ]
}


def see(tmp_path: Path, *rows: Any, max_length: int = 2048, offset: int = 0, limit: int = 5) -> Preview:
    write_tokenizer(tmp_path / "model")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = read_tokenizer(tmp_path / "model")
    return preview(tokenizer, DatasetFile(path=path), max_length, offset, limit)


def marked(text: RenderedText) -> str:
    return "".join(token.text for token in text.tokens if token.supervised)


def test_preview_shows_the_row_with_learned_marks(tmp_path: Path) -> None:
    (example,) = see(tmp_path, TALK).data
    (text,) = example.texts
    assert text.text == "".join(
        f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in TALK["messages"]
    )
    assert "".join(token.text for token in text.tokens) == text.text
    assert marked(text) == "八!<|im_end|>no<|im_end|>"
    assert text.length == text.kept == len(text.tokens)
    assert text.supervised == 3 + 1 + 1 + 2 + 1  # bytes of 八, and an end of turn each
    assert (example.row, example.truncated, example.dropped, example.problem) == (1, False, False, None)


def test_preview_shows_both_answers_of_a_pair(tmp_path: Path) -> None:
    row = {"prompt": "é?", "chosen": "八!", "rejected": "no"}
    (example,) = see(tmp_path, row).data
    assert [(text.answer, marked(text)) for text in example.texts] == [
        ("chosen", "八!<|im_end|>"),
        ("rejected", "no<|im_end|>"),
    ]
    beginnings = {text.text.partition(marked(text))[0] for text in example.texts}
    assert len(beginnings) == 1
    assert example.desirable is None
    before = example.texts[0].length - len("no") - 1
    (cut,) = see(tmp_path, row, max_length=before).data
    assert (cut.truncated, cut.dropped) == (True, False)


def test_pair_is_shown_as_dropped_if_one_answer_is(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "far", "weight": 0}
    late = [call, {"role": "tool", "content": "t"}, {"role": "assistant", "content": "no"}]
    row = {"prompt": "?", "chosen": "yes", "rejected": late}
    (whole,) = see(tmp_path, row).data
    (cut,) = see(tmp_path, row, max_length=whole.texts[0].length).data
    assert (whole.dropped, cut.dropped, cut.truncated) == (False, True, False)


def test_preview_shows_the_rating(tmp_path: Path) -> None:
    rows = [{"prompt": "?", "completion": "no", "label": rating} for rating in (True, False)]
    assert [(each.desirable, each.texts[0].answer) for each in see(tmp_path, *rows).data] == [
        (True, None),
        (False, None),
    ]


def test_preview_reports_truncated_and_dropped_rows(tmp_path: Path) -> None:
    (cut,) = see(tmp_path, TALK, max_length=40).data
    assert (cut.truncated, cut.dropped, cut.texts[0].kept) == (True, False, 40)
    (dropped,) = see(tmp_path, TALK, max_length=8).data
    assert (dropped.truncated, dropped.dropped) == (False, True)


def test_rows_that_cannot_be_learned_tell_why(tmp_path: Path) -> None:
    found = see(tmp_path, TALK, {"messages": []}, TALK)
    assert [example.problem is None for example in found.data] == [True, False, True]
    assert "messages must be a list of at least one message" in str(found.data[1].problem)


def test_rows_are_seen_a_page_at_a_time(tmp_path: Path) -> None:
    rows = [TALK] * 7
    assert ([example.row for example in see(tmp_path, *rows, limit=5).data], see(tmp_path, *rows).has_more) == (
        [1, 2, 3, 4, 5],
        True,
    )
    last = see(tmp_path, *rows, offset=5)
    assert ([example.row for example in last.data], last.has_more) == ([6, 7], False)
    assert see(tmp_path, *rows, offset=7).data == []


def test_long_text_is_shown_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "MAX_TOKENS", 20)
    (example,) = see(tmp_path, TALK).data
    (text,) = example.texts
    assert len(text.tokens) == 20 < text.length
    assert text.text == "".join(token.text for token in text.tokens)


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no rows"):
        see(tmp_path)
