import json
from pathlib import Path
from typing import Any

import pytest

from contract.failure import FailureCode, InputError
from dataset.dataset_file import DatasetFile
from dataset.lengths import TokenLengths, TokenReport, measure_lengths, token_report
from dataset.rendering.folder_tokenizer import read_tokenizer
from tests.support.files import write_tokenizer

# <|im_start|> user \n Q <|im_end|> \n <|im_start|> assistant \n A <|im_end|> \n
BEFORE_ANSWER = 1 + len("user\n") + 1 + 1 + 1 + 1 + len("assistant\n")
WHOLE = BEFORE_ANSWER + 1 + 1 + 1


def talk(answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path / "model")
    return tmp_path / "model"


def lengths(model: Path, *rows: Any, seconds: float = 60) -> TokenLengths:
    path = model.parent / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return measure_lengths(read_tokenizer(model), DatasetFile(path=path), max_seconds=seconds)


def at(model: Path, max_length: int, *rows: Any) -> TokenReport:
    return token_report(lengths(model, *rows), max_length)


def test_lengths_are_those_of_the_tokenizer(model: Path) -> None:
    found = at(model, 2048, talk("!"), talk("!" * 11))
    assert (found.examples, found.tokens) == (2, 2 * WHOLE + 10)
    # The answer and its end of turn.
    assert found.supervised_fraction == (2 + 12) / found.tokens
    assert found.percentiles["50"] == WHOLE
    assert found.percentiles["100"] == WHOLE + 10
    assert [(each.from_tokens, each.to_tokens, each.examples) for each in found.histogram] == [(16, 32, 1), (32, 64, 1)]
    assert (found.truncated, found.dropped, found.complete) == (0, 0, True)


def test_truncated_and_dropped_rows_are_counted(model: Path) -> None:
    rows = [talk("!"), talk("!" * 100)]
    short = at(model, BEFORE_ANSWER + 50, *rows)
    assert (short.truncated, short.truncated_fraction, short.dropped) == (1, 0.5, 0)
    shorter = at(model, BEFORE_ANSWER + 1, *rows)
    assert (shorter.truncated, shorter.dropped) == (2, 0)
    nothing = at(model, BEFORE_ANSWER, *rows)
    assert (nothing.truncated, nothing.dropped) == (0, 2)


def test_bad_rows_are_skipped_and_counted(model: Path) -> None:
    write_tokenizer(model, "{% if messages[0].content == 'no' %}{{ raise_exception('not no') }}{% endif %}" + TURNS)
    no = {"messages": [{"role": "user", "content": "no"}, {"role": "assistant", "content": "!"}]}
    found = at(model, 2048, {}, talk("!"), no, talk("!"))
    assert (found.examples, found.refused) == (2, 1)
    assert found.problems[0].message.startswith("row 3: the model's chat template refuses it: not no")


def pair(chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": "?", "chosen": chosen, "rejected": rejected}


def test_parts_of_pairs_are_measured_apart(model: Path) -> None:
    found = at(model, 2048, pair("!!", "!"), pair("!!!!", "!"), pair("!", "!"))
    assert (found.examples, found.tokens) == (3, 6 * WHOLE + 4)
    assert found.ratings is None
    assert found.pairs is not None
    assert found.pairs.prompt.percentiles["0"] == found.pairs.prompt.percentiles["100"] == BEFORE_ANSWER
    # Each answer ends with the end of its turn.
    assert (found.pairs.chosen.mean, found.pairs.rejected.mean) == ((3 + 5 + 2) / 3, 2)
    assert found.pairs.chosen.percentiles["100"] == 5
    assert found.pairs.identical_pairs == 1
    assert found.percentiles["100"] == WHOLE + 3


def test_pair_without_either_answer_is_dropped(model: Path) -> None:
    rows = [pair("!", "!"), pair("!", "!"), {"prompt": "?" * 30, "chosen": "!", "rejected": "!" * 9}]
    found = lengths(model, *rows)
    at_all, first_gone = token_report(found, BEFORE_ANSWER + 1), token_report(found, BEFORE_ANSWER)
    assert (at_all.truncated, at_all.dropped, at_all.dropped_rows) == (2, 1, [3])
    assert (first_gone.truncated, first_gone.dropped, first_gone.dropped_rows) == (0, 3, [1, 2, 3])


def test_pair_is_dropped_by_the_later_answer(model: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}], "weight": 0}
    write_tokenizer(model, TURNS.replace("m.content", "m.content + (m.tool_calls or '') | string"))
    late = [call, {"role": "tool", "content": "t"}, {"role": "assistant", "content": "!"}]
    found = lengths(model, {"prompt": "?", "chosen": "!", "rejected": late})
    (first,) = found.first
    assert (token_report(found, first).dropped, token_report(found, first + 1).dropped) == (1, 0)


def test_first_ten_dropped_rows_are_named(model: Path) -> None:
    rows = [talk("!")] * 12 + [{"messages": [{"role": "user", "content": "?" * 9}, talk("!")["messages"][1]]}] * 12
    found = lengths(model, *rows)
    assert token_report(found, BEFORE_ANSWER).dropped_rows == list(range(1, 11))
    assert token_report(found, BEFORE_ANSWER + 1).dropped_rows == list(range(13, 23))
    assert token_report(found, 2048).dropped_rows == []


def test_ratings_are_counted(model: Path) -> None:
    found = at(model, 2048, *(talk("!") | {"label": rating} for rating in (True, False, True)))
    assert found.pairs is None
    assert found.ratings is not None
    assert (found.ratings.desirable, found.ratings.undesirable) == (2, 1)


TURNS = (
    "{% for m in messages %}{{ m.role + ':' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def test_model_without_a_template_is_refused(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="no chat template") as refusal:
        lengths(model, talk("!"))
    assert refusal.value.failure.code is FailureCode.MODEL_UNSUPPORTED


def test_large_file_is_measured_by_its_first_rows(model: Path) -> None:
    found = lengths(model, *[talk("!")] * 600, seconds=0)
    assert (found.examples, found.complete) == (256, False)
    assert lengths(model, *[talk("!")] * 256, seconds=0).complete
