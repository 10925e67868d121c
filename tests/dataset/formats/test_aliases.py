"""The names that public data sets have for a question and its answer are known; what is unclear is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.dataset_report import check_file
from dataset.example import Conversation
from tests.dataset.example_files import failure, read_conversation, refusal, write_csv, write_lines

Row = dict[str, Any]


def talk(question: str, answer: str, system: str = "") -> list[dict[str, str]]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [{"role": "system", "content": system}, *messages] if system else messages


KNOWN: dict[str, tuple[Row, list[dict[str, str]]]] = {
    "Dolly": (
        {"instruction": "q", "context": "c", "response": "a", "category": "closed_qa"},
        talk("q\n\nc", "a"),
    ),
    "Dolly without context": ({"instruction": "q", "context": "", "response": "a", "category": "open"}, talk("q", "a")),
    "GSM8K, WebInstruct": ({"question": "q", "answer": "a"}, talk("q", "a")),
    "Orca-Math": ({"question": "q", "answer": "a", "source": "s"}, talk("q", "a")),
    "OpenOrca": ({"id": "1", "system_prompt": "s", "question": "q", "response": "a"}, talk("q", "a", "s")),
    "MetaMathQA": ({"type": "t", "query": "q", "original_question": "o", "response": "a"}, talk("q", "a")),
    "OpenO1": ({"prompt": "q", "response": "a"}, talk("q", "a")),
    "NuminaMath": ({"source": "s", "problem": "q", "solution": "a"}, talk("q", "a")),
    "MATH": ({"problem": "q", "level": "5", "type": "Algebra", "solution": "a"}, talk("q", "a")),
    "Magpie": ({"uuid": "1", "instruction": "q", "response": "a", "task": "t"}, talk("q", "a")),
    "WebQA": ({"input": "q", "output": "a"}, talk("q", "a")),
    "MedQuAD": ({"qtype": "t", "Question": "q", "Answer": "a"}, talk("q", "a")),
    "SQL": ({"question": "q", "context": "c", "answer": "a"}, talk("q\n\nc", "a")),
    "translations": ({"source": "q", "target": "a"}, talk("q", "a")),
    "user and assistant": ({"user": "q", "assistant": "a"}, talk("q", "a")),
    "human and bot": ({"human": "q", "bot": "a"}, talk("q", "a")),
    "Alpaca in capitals": ({"Instruction": "q", "Input": "c", "Output": "a"}, talk("q\n\nc", "a")),
    "Alpaca with a response": ({"instruction": "q", "input": "c", "response": "a"}, talk("q\n\nc", "a")),
    "Alpaca with a context": ({"instruction": "q", "context": "c", "output": "a"}, talk("q\n\nc", "a")),
    "a system prompt beside OpenAI's": ({"prompt": "q", "completion": "a", "system": "s"}, talk("q", "a", "s")),
    "LMSYS-Chat, WildChat": ({"conversation": talk("q", "a"), "language": "l"}, talk("q", "a")),
    "OpenHermes": (
        {
            "system_prompt": "s",
            "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        },
        talk("q", "a", "s"),
    ),
    "messages with a system message": ({"system_message": "s", "messages": talk("q", "a")}, talk("q", "a", "s")),
    "FLAN, xP3, Aya": ({"inputs": "q", "targets": "a", "task": "t"}, talk("q", "a")),
    "OpenMathInstruct": ({"problem": "q", "generated_solution": "a", "expected_answer": "4"}, talk("q", "a")),
    "LIMA": ({"conversations": ["q", "a", "r", "b"], "source": "s"}, [*talk("q", "a"), *talk("r", "b")]),
    "UltraChat": ({"id": "1", "data": ["q", "a"]}, talk("q", "a")),
    "Capybara": (
        {"conversation": [{"input": "q", "output": "a"}, {"input": "r", "output": "b"}], "source": "s"},
        [*talk("q", "a"), *talk("r", "b")],
    ),
    "XTuner": ({"conversation": [{"system": "s", "input": "q", "output": "a"}]}, talk("q", "a", "s")),
    "Firefly's conversations": ({"conversation": [{"human": "q", "assistant": "a"}]}, talk("q", "a")),
    "messages with a system prompt": ({"system_prompt": "s", "messages": talk("q", "a")}, talk("q", "a", "s")),
    "a column that only other rows have": (
        {"messages": None, "conversations": None, "text": None, "question": "q", "answer": "a"},
        talk("q", "a"),
    ),
    # These have the fields of a format, and its alone are read.
    "MathInstruct, CodeAlpaca, OpenHermes": ({"source": "s", "instruction": "q", "output": "a"}, talk("q", "a")),
    "Stanford Alpaca": ({"instruction": "q", "input": "c", "output": "a", "text": "t"}, talk("q\n\nc", "a")),
    "Firefly": ({"kind": "k", "input": "q", "target": "a"}, talk("q", "a")),
    "UltraChat, No Robots": ({"prompt": "x", "prompt_id": "1", "messages": talk("q", "a")}, talk("q", "a")),
    "NuminaMath-CoT": ({"problem": "x", "solution": "y", "messages": talk("q", "a")}, talk("q", "a")),
    "SlimOrca, Evol-Instruct, Magpie-Pro": (
        {
            "instruction": "x",
            "response": "y",
            "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
        },
        talk("q", "a"),
    ),
}


@pytest.mark.parametrize(("row", "messages"), KNOWN.values(), ids=list(KNOWN))
def test_public_shape_is_read(tmp_path: Path, row: Row, messages: list[dict[str, str]]) -> None:
    assert read_conversation(tmp_path, row).messages == messages


@pytest.mark.parametrize("row", [row for row, _ in KNOWN.values()], ids=list(KNOWN))
def test_reported_columns_read_the_same(tmp_path: Path, row: Row) -> None:
    path = write_lines(tmp_path, [row])
    found = check_file(DatasetFile(path=path))
    assert found.format is not None
    assert list(read_examples(DatasetFile(path=path, format=found.format, columns=found.columns))) == list(
        read_examples(DatasetFile(path=path))
    )


def test_report_says_which_column_became_what(tmp_path: Path) -> None:
    path = write_csv(tmp_path, ["system_prompt", "question", "response"], ["s", "q", "a"])
    assert check_file(DatasetFile(path=path)).columns == {
        "instruction": "question",
        "output": "response",
        "system": "system_prompt",
    }
    path = write_csv(tmp_path, ["instruction", "output"], ["q", "a"])
    assert check_file(DatasetFile(path=path)).columns == {}
    path = write_csv(tmp_path, ["q", "a"], ["q", "a"])
    assert check_file(DatasetFile(path=path, columns={"instruction": "q", "output": "a"})).columns == {
        "instruction": "q",
        "output": "a",
    }


def test_context_that_only_later_rows_have_is_read(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "a"}, {"question": "q", "context": "c", "answer": "a"}]
    path = write_lines(tmp_path, rows)
    first, second = read_examples(DatasetFile(path=path))
    assert isinstance(first, Conversation)
    assert isinstance(second, Conversation)
    assert (first.messages, second.messages) == (talk("q", "a"), talk("q\n\nc", "a"))
    assert check_file(DatasetFile(path=path)).columns["input"] == "context"
    rows = [{"question": "q", "answer": "a"}, {"question": "q", "context": "c", "input": "i", "answer": "a"}]
    assert refusal(write_lines(tmp_path, rows)).startswith("row 2: has both input and context")


def test_late_system_prompt_is_read(tmp_path: Path) -> None:
    rows = [{"messages": talk("q", "a")}, {"messages": talk("q", "a"), "system_prompt": "s"}]
    first, second = read_examples(DatasetFile(path=write_lines(tmp_path, rows)))
    assert isinstance(first, Conversation)
    assert isinstance(second, Conversation)
    assert (first.messages, second.messages) == (talk("q", "a"), talk("q", "a", "s"))
    rows = [{"messages": talk("q", "a", "t"), "system_prompt": "s"}]
    assert "system differs from the system message" in refusal(write_lines(tmp_path, rows))


def test_message_of_a_tree_is_no_document(tmp_path: Path) -> None:
    rows = [{"message_id": "1", "parent_id": None, "text": "Can you?", "role": "prompter"}]
    assert "one message of a tree" in refusal(write_lines(tmp_path, rows))
    assert len(list(read_examples(DatasetFile(path=write_lines(tmp_path, rows), format="text")))) == 1


UNCLEAR: list[tuple[Row, str]] = [
    ({"question": "q", "answer": "a", "response": "b"}, "response, answer the answer"),
    ({"problem": "q", "solution": "a", "answer": "b"}, "answer, solution the answer"),
    ({"prompt": "q", "query": "r", "response": "b"}, "query, prompt could be the question"),
    ({"human": "q", "bot": "a", "question": "r", "answer": "b"}, "question, human could be the question"),
    ({"Question": "q", "question": "r", "answer": "b"}, "Question, question could be the question"),
    ({"question": "q", "answer": "a", "input": "i", "context": "c"}, "could both be the input"),
    ({"question": "q", "choices": ["x", "y"], "answer": "a"}, "choices beside them"),
    ({"question": "q", "A": "x", "B": "y", "answer": "A"}, "A, B beside them"),
    ({"article": "t", "question": "q", "answer": "a"}, "article beside them"),
    ({"question": "q", "solution": "a", "thinking_trajectories": ["t"]}, "thinking_trajectories beside them"),
    ({"text": "t", "question": "q", "answer": "a"}, "text, and question and answer beside it"),
    ({"text": "q", "response": "a"}, "text, and response beside it"),
    ({"text": "q", "code": "a", "task_id": 1}, "text, and code beside it"),
    ({"text": "q", "summary": "a"}, "text, and summary beside it"),
    ({"question": "q", "explanation": "e", "answer": "a"}, "explanation beside them"),
    ({"question": "q", "schema": "s", "answer": "a"}, "schema beside them"),
    ({"instruction": "q", "output": "a", "reasoning": "r"}, "reasoning beside them"),
    ({"prompt": "q", "completion": "a", "Chain_of_Thought": "r"}, "Chain_of_Thought beside them"),
    ({"messages": talk("q", "a"), "system_prompt": "s", "system_message": "t"}, "could both be the system"),
    ({"text": "t", "instruction": "q", "response": "a"}, "text, and instruction and response beside it"),
    ({"Question": "q", "Complex_CoT": "t", "Response": "a"}, "Complex_CoT beside them"),
]


@pytest.mark.parametrize(("row", "words"), UNCLEAR, ids=lambda each: ", ".join(each) if isinstance(each, dict) else "")
def test_ambiguous_columns_are_refused_once_with_advice(tmp_path: Path, row: Row, words: str) -> None:
    fault = failure(write_lines(tmp_path, [row] * 3))
    assert fault.param == "dataset.columns"
    assert words in fault.message
    assert 'dataset.columns {"' in fault.message


def test_named_columns_are_the_only_ones_read(tmp_path: Path) -> None:
    columns: Any = {"instruction": "question", "output": "answer"}
    for row in ({"question": "q", "choices": ["x"], "answer": "a"}, {"question": "q", "context": "c", "answer": "a"}):
        assert read_conversation(tmp_path, row, "auto", columns).messages == talk("q", "a")


def test_named_format_has_only_its_own_fields(tmp_path: Path) -> None:
    assert "instruction is empty" in refusal(write_lines(tmp_path, [{"question": "q", "answer": "a"}]), "alpaca")


def test_calls_of_xlam_are_refused_with_a_conversion(tmp_path: Path) -> None:
    calls = [{"name": "f", "arguments": {"a": 1}}]
    row = {"query": "q", "answers": json.dumps(calls), "tools": '[{"name": "f", "parameters": {}}]'}
    assert "jq -c" in refusal(write_lines(tmp_path, [row]))
    converted = {
        "messages": [{"role": "user", "content": row["query"]}, {"role": "assistant", "tool_calls": row["answers"]}],
        "tools": row["tools"],
    }
    found = read_conversation(tmp_path, converted)
    assert found.messages[1]["tool_calls"] == [{"type": "function", "function": calls[0]}]
