"""Pairs of answers: every shape that public data sets and other trainers give them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.dataset_report import check_file
from dataset.example import Conversation, Preference, conversation
from tests.dataset.example_files import (
    WEATHER,
    failure,
    read_row,
    refusal_of_row,
    write_csv,
    write_lines,
    write_parquet,
)

Row = dict[str, Any]
PAIR: Row = {"prompt": "q", "chosen": "a", "rejected": "b"}


def asks(text: str = "q") -> Any:
    return {"role": "user", "content": text}


def answers(text: str) -> Any:
    return {"role": "assistant", "content": text}


def pair(prompt: list[Any], chosen: str = "a", rejected: str = "b") -> Preference:
    """After a prompt without answers, or with some that are not learned."""
    unlearned = frozenset(range(len(prompt)))
    good, bad = (conversation([*prompt, answers(each)], None, unlearned) for each in (chosen, rejected))
    return Preference(good, bad)


def turn(speaker: str, text: str) -> Row:
    return {"from": speaker, "value": text}


def parts(role: str, text: str) -> Row:
    return {"role": role, "content": [{"type": "text", "value": text}], "loss_weight": float(role == "assistant")}


WHOLE: Row = {"chosen": [asks(), answers("a")], "rejected": [asks(), answers("b")]}
SHAPES: dict[str, Row] = {
    "OpenAI": {
        "input": {"messages": [asks()], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [answers("a")],
        "non_preferred_output": [answers("b")],
    },
    "OpenAI before": {
        "input": {"messages": [asks()]},
        "preferred_completion": [answers("a")],
        "non_preferred_completion": [answers("b")],
    },
    "TRL": PAIR,
    "TRL's conversations": {"prompt": [asks()], "chosen": [answers("a")], "rejected": [answers("b")]},
    "TRL without a prompt, UltraFeedback, Skywork": {**WHOLE, "score_chosen": 8.5},
    "UltraFeedback binarized": {"prompt": "q", "prompt_id": "1", "messages": WHOLE["chosen"], **WHOLE},
    "UltraFeedback cleaned": {"source": "s", "prompt": "q", **WHOLE, "chosen-rating": 5.0},
    "UltraFeedback by Argilla": {"source": "s", "instruction": "q", "chosen_response": "a", "rejected_response": "b"},
    "Anthropic HH": {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    "HH with a prompt": {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": " a", "rejected": " b"},
    "HH with a prompt twice": {
        "prompt": "\n\nHuman: q\n\nAssistant:",
        "chosen": "\n\nHuman: q\n\nAssistant: a",
        "rejected": "\n\nHuman: q\n\nAssistant: b",
    },
    "LLaMA-Factory": {
        "conversations": [turn("human", "q")],
        "chosen": turn("gpt", "a"),
        "rejected": turn("gpt", "b"),
    },
    "LLaMA-Factory's lists": {
        "conversations": [turn("human", "q")],
        "chosen": [turn("gpt", "a")],
        "rejected": [turn("gpt", "b")],
    },
    "LLaMA-Factory's alpaca": {"instruction": "q", "input": "", "chosen": "a", "rejected": "b"},
    "LLaMA-Factory v1": {
        "chosen_messages": [parts("user", "q"), parts("assistant", "a")],
        "rejected_messages": [parts("user", "q"), parts("assistant", "b")],
    },
    "ms-swift": {"messages": [asks(), answers("a")], "rejected_response": "b"},
    "ms-swift's messages": {"messages": [asks(), answers("a")], "rejected_messages": [asks(), answers("b")]},
    "Axolotl": {"messages": [asks()], "chosen": answers("a"), "rejected": answers("b")},
    "Intel Orca": {"system": "", "question": "q", "chosen": "a", "rejected": "b"},
    "Intel Orca by Argilla": {"system": "", "input": "q", "chosen": "a", "rejected": "b", "chosen_score": 7.0},
    "a mix of preferences": {"source": "s", "prompt": "q", "question": "q", **WHOLE},
    "a column that only other rows have": {"messages": None, "completion": None, **PAIR},
}


@pytest.mark.parametrize("row", SHAPES.values(), ids=list(SHAPES))
def test_shape_of_a_pair_is_read(tmp_path: Path, row: Row) -> None:
    assert read_row(tmp_path, row) == pair([asks()])
    assert read_row(tmp_path, row, learned="pairs") == pair([asks()])


@pytest.mark.parametrize("row", SHAPES.values(), ids=list(SHAPES))
def test_reported_columns_read_the_same_pair(tmp_path: Path, row: Row) -> None:
    path = write_lines(tmp_path, [row])
    found = check_file(DatasetFile(path=path))
    assert (found.format, found.learned, found.errors) == ("preference", "pairs", [])
    again = DatasetFile(path=path, format=found.format or "auto", columns=found.columns or None)
    assert list(read_examples(again)) == [pair([asks()])]


@pytest.mark.parametrize("row", SHAPES.values(), ids=list(SHAPES))
def test_pair_from_parquet_equals_json(tmp_path: Path, row: Row) -> None:
    path = write_parquet(tmp_path, [row])
    assert list(read_examples(DatasetFile(path=path))) == [pair([asks()])]


def test_pair_from_csv_is_read(tmp_path: Path) -> None:
    path = write_csv(tmp_path, ["prompt", "chosen", "rejected"], ["q", "a", "b"])
    assert list(read_examples(DatasetFile(path=path))) == [pair([asks()])]


def test_answers_know_their_place(tmp_path: Path) -> None:
    example = read_row(tmp_path, PAIR)
    assert isinstance(example, Preference)
    assert [each.where for each in (example, example.chosen, example.rejected)] == [
        "row 1",
        "row 1, chosen",
        "row 1, rejected",
    ]


def test_own_column_names_of_a_pair_are_mapped(tmp_path: Path) -> None:
    row = {"ask": "q", "good": "a", "bad": "b"}
    columns = {"prompt": "ask", "chosen": "good", "rejected": "bad"}
    assert read_row(tmp_path, row, columns=columns) == pair([asks()])
    message = refusal_of_row(tmp_path, row | {"bad": ""}, "auto", columns, learned="pairs")
    assert message == "row 1: has no answer: rejected is empty; rejected is the column bad"


def test_system_tools_and_arguments_are_of_both_answers(tmp_path: Path) -> None:
    row = PAIR | {"system": "s", "tools": [WEATHER], "chat_template_kwargs": {"enable_thinking": False}}
    found = read_row(tmp_path, row)
    assert isinstance(found, Preference)
    for each in (found.chosen, found.rejected):
        assert each.messages[:2] == [{"role": "system", "content": "s"}, asks()]
        assert (each.tools, each.template_arguments) == ([WEATHER], {"enable_thinking": False})
    for inside, beside in (([WEATHER], []), ([], [WEATHER])):
        row = {"input": {"messages": [asks()], "tools": inside}, "tools": beside, "preferred_output": [answers("a")]}
        found = read_row(tmp_path, row | {"non_preferred_output": [answers("b")]})
        assert isinstance(found, Preference)
        assert found.chosen.tools == found.rejected.tools == [WEATHER]


def test_earlier_answers_belong_to_the_prompt(tmp_path: Path) -> None:
    earlier = [asks("p"), answers("x"), asks()]
    whole = {"chosen": [*earlier, answers("a")], "rejected": [*earlier, answers("b")]}
    text = "\n\nHuman: p\n\nAssistant: x\n\nHuman: q\n\nAssistant: {}"
    for row in (
        whole,
        {"prompt": earlier, "chosen": "a", "rejected": "b"},
        {"instruction": "q", "history": [["p", "x"]], "chosen": "a", "rejected": "b"},
        {"chosen": text.format("a"), "rejected": text.format("b")},
    ):
        assert read_row(tmp_path, row) == pair(earlier)


def test_identical_answers_are_legal_and_counted(tmp_path: Path) -> None:
    same = {"chosen": [asks(), answers("a")], "rejected": [asks(), answers("a")]}
    assert read_row(tmp_path, same) == pair([asks()], "a", "a")
    path = write_lines(tmp_path, [same, WHOLE, same])
    found = check_file(DatasetFile(path=path))
    assert (found.examples, found.identical_pairs, found.duplicate_rows, found.errors) == (3, 2, [3], [])


def test_weight_zero_takes_a_message_out_of_the_comparison(tmp_path: Path) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}], "weight": 0}
    row = {"prompt": "q", "chosen": [call, {"role": "tool", "content": "t"}, answers("a")], "rejected": "b"}
    found = read_row(tmp_path, row)
    assert isinstance(found, Preference)
    assert (found.chosen.supervised, found.rejected.supervised) == ([False, False, False, True], [False, True])
    assert "has no answer: chosen has no message" in refusal_of_row(
        tmp_path, PAIR | {"chosen": [{**answers("a"), "weight": 0}]}
    )


def test_reasoning_and_calls_of_answers_are_kept(tmp_path: Path) -> None:
    chosen = {**answers("a"), "reasoning_content": "t"}
    rejected = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    found = read_row(tmp_path, PAIR | {"chosen": [chosen], "rejected": [rejected]})
    assert isinstance(found, Preference)
    assert found.chosen.messages[-1].get("reasoning_content") == "t"
    assert found.rejected.messages[-1].get("tool_calls")
    assert found.rejected.supervised == [False, True]


def test_answers_may_have_several_turns(tmp_path: Path) -> None:
    row = {
        "chosen": [asks(), answers("a"), asks("r"), answers("c")],
        "rejected": [asks(), answers("b"), asks("s"), answers("d")],
    }
    found = read_row(tmp_path, row)
    assert isinstance(found, Preference)
    assert found.chosen.supervised == found.rejected.supervised == [False, True, False, True]


LISTS = {"chosen": [asks(), answers("a")], "rejected": [asks("r"), answers("b")]}
REFUSED: list[tuple[Row, str]] = [
    ({"chosen": "a", "rejected": "b"}, "has chosen and rejected, and no prompt"),
    (PAIR | {"rejected": " "}, "has no answer: rejected is empty"),
    ({"prompt": "q", "chosen": "a"}, "has no answer: no rejected beside chosen"),
    ({"input": {"messages": [asks()]}, "non_preferred_output": [answers("b")]}, "has no answer: no chosen beside"),
    (PAIR | {"chosen": []}, "has no answer: chosen is empty"),
    (PAIR | {"chosen": [answers("")]}, "has no answer: chosen has no message of the assistant"),
    (PAIR | {"chosen": 3}, "chosen must be a list"),
    (PAIR | {"prompt": [3]}, "prompt[0] must be an object"),
    (LISTS, "chosen[0] and rejected[0] differ before any answer"),
    (WHOLE | {"rejected": [answers("b")]}, "chosen[0] and rejected[0] differ before any answer"),
    (WHOLE | {"rejected": [asks()]}, "has no answer: rejected ends with a message of role user"),
    (
        {
            "chosen": [asks(), answers("x"), asks("r"), answers("a")],
            "rejected": [asks(), answers("x"), asks("s"), answers("b")],
        },
        "chosen[2] and rejected[2] differ before any answer",
    ),
    (WHOLE | {"prompt": "r"}, "prompt differs from the beginning of chosen"),
    (WHOLE | {"prompt": [{"role": "system", "content": "s"}, asks()]}, "prompt differs from the beginning of chosen"),
    (WHOLE | {"messages": [asks("r")]}, "messages differs from the beginning of chosen"),
    (PAIR | {"messages": [asks()]}, "has both prompt and messages as the prompt"),
    (PAIR | {"input": "i"}, "has both prompt and input as the prompt"),
    (PAIR | {"history": [["p", "x"]]}, "history is "),
    (PAIR | {"chosen_messages": [answers("a")]}, "has both chosen and chosen_messages"),
    ({"chosen": "\n\nHuman: q\n\nHuman: r\n\nAssistant: a", "rejected": "b"}, "two turns of Human in a row"),
    ({"chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r", "rejected": "b"}, "chosen ends with a turn of Human"),
    ({"messages": [asks()], "rejected_response": "b"}, "messages must end with the assistant's better answer"),
    (
        {"input": {"prompt": "q"}, "preferred_output": [answers("a")], "non_preferred_output": [answers("b")]},
        "input must be a text, or an object with messages",
    ),
    (
        {"input": {"messages": [asks()], "tools": [WEATHER]}, "tools": [WEATHER], "chosen": "a", "rejected": "b"},
        "has both tools and input.tools",
    ),
    (PAIR | {"images": ["a.jpg"]}, "images is "),
    ({"input": {"messages": [asks()], "images": ["a.jpg"]}, "chosen": "a", "rejected": "b"}, "images is "),
    (PAIR | {"images": [], "prompt": "<image>"}, "a text has <image>"),
    (PAIR | {"reasoning_content": "t"}, "reasoning_content is "),
    (PAIR | {"label": True}, "label is true, which rates one answer"),
    (PAIR | {"kto_tag": 0}, "kto_tag is 0, which rates one answer"),
    (PAIR | {"tool_choice": "none"}, "tool_choice is "),
    (PAIR | {"loss_weight": 0.5}, "loss_weight is 0.5"),
    (
        {"input": {"messages": [asks()], "tool_choice": "none"}, "chosen": "a", "rejected": "b"},
        'tool_choice is "none"',
    ),
]


@pytest.mark.parametrize(("row", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_bad_pair_is_refused_by_name(tmp_path: Path, row: Row, words: str) -> None:
    assert words in refusal_of_row(tmp_path, row, learned="pairs")


def test_parallel_calls_against_a_pair_are_refused(tmp_path: Path) -> None:
    calls = [{"function": {"name": "f"}}, {"function": {"name": "g"}}]
    row = {
        "input": {"messages": [asks()], "parallel_tool_calls": False},
        "preferred_output": [{"role": "assistant", "tool_calls": calls}],
        "non_preferred_output": [answers("b")],
    }
    assert "parallel_tool_calls is false" in refusal_of_row(tmp_path, row)


def test_two_columns_for_the_prompt_are_refused(tmp_path: Path) -> None:
    fault = failure(write_lines(tmp_path, [{"question": "q", "query": "r", "chosen": "a", "rejected": "b"}]))
    assert fault.param == "dataset.columns"
    assert 'dataset.columns {"prompt": "question"}' in fault.message


def test_unused_fields_of_a_pair_are_counted(tmp_path: Path) -> None:
    row = {
        "prompt": [asks()],
        "chosen": {**answers("a"), "id": 1},
        "rejected": [{**answers("b"), "model": "m"}],
        "margin": 2.0,
    }
    found = check_file(DatasetFile(path=write_lines(tmp_path, [row])))
    assert found.unused_fields == {"margin": 1, "chosen[].id": 1, "rejected[].model": 1}


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=9).filter(
    str.strip
)
TURNS = st.lists(st.tuples(TEXTS, TEXTS), max_size=3)


@given(TURNS, TEXTS, TEXTS, TEXTS)
def test_whole_conversations_equal_prompt_and_answers(
    tmp_path_factory: pytest.TempPathFactory, earlier: list[tuple[str, str]], question: str, good: str, bad: str
) -> None:
    before = [message for ask, said in earlier for message in (asks(ask), answers(said))] + [asks(question)]
    folder = tmp_path_factory.mktemp("rows")
    apart = read_row(folder, {"prompt": before, "chosen": [answers(good)], "rejected": [answers(bad)]})
    whole = read_row(folder, {"chosen": [*before, answers(good)], "rejected": [*before, answers(bad)]})
    assert apart == whole == pair(before, good, bad)
    assert isinstance(apart, Preference)
    learned = [message for message, flag in zip(apart.chosen.messages, apart.chosen.supervised, strict=True) if flag]
    assert learned == [answers(good)]
    swapped = read_row(folder, {"prompt": before, "chosen": [answers(bad)], "rejected": [answers(good)]})
    assert isinstance(swapped, Preference)
    assert (swapped.chosen, swapped.rejected) == (apart.rejected, apart.chosen)


def test_better_answer_alone_is_learned_where_mapped(tmp_path: Path) -> None:
    alone = Conversation([asks(), answers("a")], [False, True])
    for row, columns in (
        (PAIR, {"completion": "chosen"}),
        (WHOLE, {"messages": "chosen"}),
        (SHAPES["UltraFeedback binarized"], {"messages": "chosen"}),
        (json.loads(json.dumps(SHAPES["LLaMA-Factory v1"])), {"messages": "chosen_messages"}),
    ):
        for learned in (None, "answers"):
            assert read_row(tmp_path, row, "auto", columns, learned) == alone
