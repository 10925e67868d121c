"""Names that public data sets have for the question and the answer of a row, in place of Alpaca's.

Among others: Dolly (instruction, context, response), GSM8K, Orca-Math and WebInstruct (question, answer), OpenOrca
(system_prompt, question, response), MetaMathQA (query, response), OpenO1 (prompt, response), NuminaMath (problem,
solution), WebQA (input, output), Magpie (instruction, response), MedQuAD (Question, Answer).
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from contract.quote import cut
from contract.recipe import DatasetField, DatasetFormat
from dataset.fields import Row
from dataset.formats.detect import FORMATS
from dataset.refusal import BadFile

_PAIRS: tuple[tuple[Collection[str], Collection[str]], ...] = (
    (
        ("instruction", "question", "query", "prompt", "problem"),
        ("output", "response", "answer", "completion", "solution"),
    ),
    (("user", "human"), ("assistant", "bot", "gpt")),
    (("source",), ("target",)),
)
_LAST: tuple[Collection[str], Collection[str]] = (("input",), ("output", "response", "answer"))
"""Where there is no other question: else `input` is what is given with it."""
_ANSWERS = ("output", "response", "answer", "completion")
"""Beside a text they make a question of it."""
_BESIDE: Mapping[str, DatasetField] = {
    "input": "input",
    "context": "input",
    "system": "system",
    "system_prompt": "system",
    "system_message": "system",
    "history": "history",
}
_SYSTEM: Mapping[DatasetField, str] = {"system": "system_prompt"}
"""As OpenHermes has it beside conversations."""
_LATER: Mapping[DatasetField, str] = {"input": "context", "system": "system_prompt"}
_MEANINGFUL = {"choices", "options", "a", "b", "c", "d", "chosen", "rejected"}
_MEANINGFUL |= {"passage", "passages", "paragraph", "article", "document", "story", "evidence", "knowledge"}
_MEANINGFUL |= {"cot", "complex_cot", "chain_of_thought", "rationale", "reasoning"}
_MEANINGFUL |= {"thinking_trajectories", "gemini_thinking_trajectory", "deepseek_thinking_trajectory"}
"""Parts of a question or an answer that no format has a field for."""
_AS_THEY_ARE: tuple[DatasetFormat, ...] = ("messages", "sharegpt", "self_instruct", "belle", "chinese_vicuna")


@dataclass(frozen=True)
class Aliases:
    columns: Mapping[DatasetField, str]
    """The names that the first row has for fields of alpaca, or for messages; those of a format need none."""
    optional: Mapping[DatasetField, str]
    """Names that later rows may have."""


def find_aliases(row: Row) -> Aliases | None:
    """None where the row has the fields of a format, or none of these names. Raises BadFile where a name could be
    either of two fields, or another column would be left out of the question or the answer."""
    # Parquet writes null for a column that only other rows have.
    held = {name: value for name, value in row.items() if value is not None}
    if any(FORMATS[format].shape(held) for format in _AS_THEY_ARE):
        return Aliases({}, _SYSTEM)
    if _is_messages(row.get("conversation")):
        return Aliases({"messages": "conversation"}, _SYSTEM)
    names = _by_lower_case(row)
    question, answer = _known_pair(row) or _pair(names)
    if question is None or answer is None:
        _check_text_is_all(row, names)
        return None
    if FORMATS["text"].shape(held) and not _known_pair(row):
        raise _unclear(
            f"has text, and {cut(question, 40)} and {cut(answer, 40)} beside it; say which is to be learned, as "
            f'dataset.format "text" or {_advice(question, answer)}'
        )
    beside = _beside(names, question)
    if "prompt" in row and "completion" in row and not (beside and isinstance(row["prompt"], str)):
        return Aliases({}, _SYSTEM)
    if (question, answer) != ("instruction", "output"):
        left_out = [names[name][0] for name in sorted(_MEANINGFUL & names.keys()) if row[names[name][0]]]
        if left_out:
            raise _unclear(
                f"has {cut(question, 40)} and {cut(answer, 40)}, and {cut(', '.join(left_out), 80)} beside them, which "
                "would be left out; put all of it into these two, or say in dataset.columns that they are to be read "
                f"alone: {_advice(question, answer)}"
            )
    columns: dict[DatasetField, str] = {"instruction": question, "output": answer, **beside}
    renamed = {field: name for field, name in columns.items() if field != name}
    return Aliases(renamed, {field: name for field, name in _LATER.items() if field not in columns})


def _check_text_is_all(row: Row, names: Mapping[str, list[str]]) -> None:
    answer = next((names[name][0] for name in _ANSWERS if name in names), None)
    if answer is not None and row.get("text") and "instruction" not in row:
        raise _unclear(
            f'has text, and {cut(answer, 40)} beside it; say what is to be learned, as dataset.format "text" or '
            f"{_advice('text', answer)}"
        )
    # As OASST's: each row is one message, and its text alone is no document.
    if {"text", "role", "parent_id"} <= row.keys():
        raise _unclear(
            "has one message of a tree in each row (text, role and parent_id); write each way through the tree as "
            'messages, or say dataset.format "text" to learn each message alone'
        )


def _is_messages(value: Any) -> bool:
    """As LMSYS-Chat and WildChat have them."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _by_lower_case(row: Row) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name in row:
        names.setdefault(name.lower(), []).append(name)
    return names


def _known_pair(row: Row) -> tuple[str, str] | None:
    """Of alpaca and prompt_completion: other names beside these are no question."""
    known = (("instruction", "output"), ("prompt", "completion"))
    return next((pair for pair in known if row.keys() >= set(pair)), None)


def _pair(names: Mapping[str, list[str]]) -> tuple[str, str] | tuple[None, None]:
    found = [_of(names, pair) for pair in _PAIRS]
    found = [each for each in found if all(each)] or [each for each in [_of(names, _LAST)] if all(each)]
    if not found:
        return None, None
    questions, answers = [name for each in found for name in each[0]], [name for each in found for name in each[1]]
    if len(questions) > 1 or len(answers) > 1:
        could_be = f"{cut(', '.join(questions), 80)} could be the question and {cut(', '.join(answers), 80)} the answer"
        raise _unclear(f"{could_be}; say which is which, as {_advice(questions[0], answers[0])}")
    return questions[0], answers[0]


def _of(names: Mapping[str, list[str]], pair: tuple[Collection[str], Collection[str]]) -> tuple[list[str], list[str]]:
    questions, answers = ([column for name in of for column in names.get(name, ())] for of in pair)
    return questions, answers


def _beside(names: Mapping[str, list[str]], question: str) -> dict[DatasetField, str]:
    beside: dict[DatasetField, str] = {}
    for name, field in _BESIDE.items():
        for column in names.get(name, ()):
            if column == question:
                continue
            if field in beside:
                raise _unclear(
                    f"{cut(beside[field], 40)} and {cut(column, 40)} could both be the {field}; say which is, as "
                    f"dataset.columns {json.dumps({field: cut(column, 40)}, ensure_ascii=False)} does"
                )
            beside[field] = column
    return beside


def _advice(question: str, answer: str) -> str:
    columns = {"instruction": cut(question, 40), "output": cut(answer, 40)}
    return f"dataset.columns {json.dumps(columns, ensure_ascii=False)}"


def _unclear(problem: str) -> BadFile:
    return BadFile(f"has columns that could be read in more than one way: {problem}", "dataset.columns")
