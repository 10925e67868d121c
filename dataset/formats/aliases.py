"""Names that public datasets use for the question and the answer of a row, instead of Alpaca's.

Among others: Dolly (instruction, context, response), GSM8K, Orca-Math and WebInstruct (question, answer), OpenOrca
(system_prompt, question, response), MetaMathQA (query, response), OpenO1 (prompt, response), NuminaMath (problem,
solution), WebQA (input, output), Magpie (instruction, response), MedQuAD (Question, Answer). Of the pairs of answers:
Intel's Orca (question, chosen, rejected) and Argilla's UltraFeedback (instruction, chosen_response, rejected_response).
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from contract.dataset_format import DatasetField, DatasetFormat
from contract.formatting import truncate
from dataset.fields import Row, is_blank
from dataset.formats.detect import FORMATS
from dataset.formats.preference import PAIR_NAMES, PROMPTS, has_pair
from dataset.formats.sharegpt import has_short_turns
from dataset.refusal import BadFile

_PAIRS: tuple[tuple[Collection[str], Collection[str]], ...] = (
    (
        ("instruction", "question", "query", "prompt", "problem"),
        ("output", "response", "answer", "completion", "solution", "generated_solution"),
    ),
    (("user", "human"), ("assistant", "bot", "gpt")),
    (("source",), ("target",)),
    (("inputs",), ("targets",)),
)
_QUESTIONS = _PAIRS[0][0]
_LAST: tuple[Collection[str], Collection[str]] = (("input",), ("output", "response", "answer"))
"""Used if the row has no other question. Otherwise `input` is additional input for the question."""
_ANSWERS = ("output", "response", "answer", "completion", "solution", "target", "targets", "summary", "code")
"""Beside one of these, a column named text is a question."""
_OTHER_COLUMNS: Mapping[str, DatasetField] = {
    "input": "input",
    "context": "input",
    "system": "system",
    "system_prompt": "system",
    "system_message": "system",
    "history": "history",
}
_SYSTEM: Mapping[str, DatasetField] = {"system_prompt": "system", "system_message": "system"}
"""OpenHermes has the first of them beside its conversations."""
_OPTIONAL: Mapping[str, DatasetField] = {"context": "input", **_SYSTEM}
_THOUGHTS = {"cot", "complex_cot", "chain_of_thought", "rationale", "reasoning", "explanation"}
_THOUGHTS |= {"think", "thought", "thoughts", "analysis"}
_THOUGHTS |= {"thinking_trajectories", "gemini_thinking_trajectory", "deepseek_thinking_trajectory"}
_PART_OF_ANSWER = {"choices", "options", "a", "b", "c", "d", "chosen", "rejected", "definition", "table", "schema"}
_PART_OF_ANSWER |= {"passage", "passages", "paragraph", "article", "document", "story", "evidence", "knowledge"}
_PART_OF_ANSWER |= _THOUGHTS
"""Columns that are part of a question or an answer, and that no format has a field for."""
_AS_THEY_ARE: tuple[DatasetFormat, ...] = ("messages", "sharegpt", "self_instruct", "belle", "chinese_vicuna")


@dataclass(frozen=True)
class Aliases:
    columns: Mapping[DatasetField, str]
    """The first row's names for fields of alpaca or messages, where they differ from the field."""
    optional: Mapping[str, DatasetField]
    """Names that later rows may have, with their fields."""


def find_aliases(row: Row) -> Aliases | None:
    """None if the row has the fields of a format or none of these names. Raises BadFile if a name could be either of
    two fields, or if another part of the question or the answer would be left out."""
    # Parquet writes null for a column that only other rows have.
    filled = {name: value for name, value in row.items() if value is not None}
    if has_pair(row):
        return Aliases(_prompt_of_pair(row), {**PAIR_NAMES, **_one_system(row)})
    if any(FORMATS[format].shape(filled) for format in _AS_THEY_ARE):
        return Aliases({}, _one_system(row))
    if _is_messages(row.get("conversation")):
        return Aliases({"messages": "conversation"}, _one_system(row))
    for name in ("conversation", "data"):
        if has_short_turns(row.get(name)):
            return Aliases({"conversations": name}, _one_system(row))
    names = _by_lower_case(row)
    _check_no_calls(names)
    question, answer = _known_pair(row) or _pair(names)
    if question is None or answer is None:
        _check_text_is_all(row, names)
        return None
    if FORMATS["text"].shape(filled) and not _known_pair(row):
        raise _unclear(
            f"has text, and {truncate(question, 40)} and {truncate(answer, 40)} beside it; say which is to be "
            "learned, as "
            f'dataset.format "text" or {_advice(question, answer)}'
        )
    beside = _other_columns(names, question)
    if "prompt" in row and "completion" in row and not (beside and isinstance(row["prompt"], str)):
        _check_nothing_is_left_out(row, names, "prompt", "completion")
        return Aliases({}, _SYSTEM)
    _check_nothing_is_left_out(row, names, question, answer)
    columns: dict[DatasetField, str] = {"instruction": question, "output": answer, **beside}
    renamed = {field: name for field, name in columns.items() if field != name}
    return Aliases(renamed, {name: field for name, field in _OPTIONAL.items() if field not in columns})


def _prompt_of_pair(row: Row) -> dict[DatasetField, str]:
    """The column of a pair's prompt, if it is none of the format's own fields. Whole conversations need none."""
    if any(not is_blank(row.get(name)) for name in PROMPTS):
        return {}
    names = _by_lower_case(row)
    found = [column for name in _QUESTIONS for column in names.get(name, ()) if not is_blank(row[column])]
    if len(found) > 1:
        columns = json.dumps({"prompt": truncate(found[0], 40)}, ensure_ascii=False)
        raise _unclear(
            f"{truncate(', '.join(found), 80)} could be the prompt; say which is, as dataset.columns {columns}"
        )
    return {"prompt": found[0]} if found else {}


def _one_system(row: Row) -> Mapping[str, DatasetField]:
    """The names of a system message beside a conversation. Raises BadFile if the row has both."""
    _other_columns({name: [name] for name in _SYSTEM if row.get(name)}, "")
    return _SYSTEM


def _check_no_calls(names: Mapping[str, list[str]]) -> None:
    if {"query", "answers", "tools"} <= names.keys():
        raise _unclear(
            "has calls in answers, as xLAM's dataset has; write each row as messages, as jq -c '{messages: [{role: "
            '"user", content: .query}, {role: "assistant", tool_calls: .answers}], tools}\' FILE does'
        )


def _check_nothing_is_left_out(row: Row, names: Mapping[str, list[str]], question: str, answer: str) -> None:
    # The fields of a format are what its rows are read by; a thought beside them is a part of the answer all the same.
    own = (question, answer) in (("instruction", "output"), ("prompt", "completion"))
    parts = _THOUGHTS if own else _PART_OF_ANSWER
    left_out = [names[name][0] for name in sorted(parts & names.keys()) if row[names[name][0]]]
    if left_out:
        raise _unclear(
            f"has {truncate(question, 40)} and {truncate(answer, 40)}, and {truncate(', '.join(left_out), 80)} "
            "beside them, which "
            "would be left out; put all of it into these two, or say in dataset.columns that they are to be read "
            f"alone: {_advice(question, answer)}"
        )


def _check_text_is_all(row: Row, names: Mapping[str, list[str]]) -> None:
    answer = next((names[name][0] for name in _ANSWERS if name in names), None)
    if answer is not None and not is_blank(row[answer]) and row.get("text") and "instruction" not in row:
        raise _unclear(
            f'has text, and {truncate(answer, 40)} beside it; say what is to be learned, as dataset.format "text" or '
            f"{_advice('text', answer)}"
        )
    # As in OASST: each row is one message, and its text alone is not a document.
    if {"text", "role", "parent_id"} <= row.keys():
        raise _unclear(
            "has one message of a tree in each row (text, role and parent_id); write each way through the tree as "
            'messages, or say dataset.format "text" to learn each message alone'
        )


def _is_messages(value: Any) -> bool:
    """LMSYS-Chat and WildChat have lists of messages under other names."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _by_lower_case(row: Row) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name in row:
        names.setdefault(name.lower(), []).append(name)
    return names


def _known_pair(row: Row) -> tuple[str, str] | None:
    """The pair of alpaca or prompt_completion. Beside it, other names are not questions."""
    known = (("instruction", "output"), ("prompt", "completion"))
    return next((pair for pair in known if row.keys() >= set(pair)), None)


def _pair(names: Mapping[str, list[str]]) -> tuple[str, str] | tuple[None, None]:
    found = [_matching(names, pair) for pair in _PAIRS]
    found = [each for each in found if all(each)] or [each for each in [_matching(names, _LAST)] if all(each)]
    if not found:
        return None, None
    questions, answers = [name for each in found for name in each[0]], [name for each in found for name in each[1]]
    if len(questions) > 1 or len(answers) > 1:
        could_be = (
            f"{truncate(', '.join(questions), 80)} could be the question and {truncate(', '.join(answers), 80)} the "
            "answer"
        )
        raise _unclear(f"{could_be}; say which is which, as {_advice(questions[0], answers[0])}")
    return questions[0], answers[0]


def _matching(
    names: Mapping[str, list[str]], pair: tuple[Collection[str], Collection[str]]
) -> tuple[list[str], list[str]]:
    questions, answers = ([column for name in of for column in names.get(name, ())] for of in pair)
    return questions, answers


def _other_columns(names: Mapping[str, list[str]], question: str) -> dict[DatasetField, str]:
    beside: dict[DatasetField, str] = {}
    for name, field in _OTHER_COLUMNS.items():
        for column in names.get(name, ()):
            if column == question:
                continue
            if field in beside:
                raise _unclear(
                    f"{truncate(beside[field], 40)} and {truncate(column, 40)} could both be the {field}; say which "
                    f"is, as dataset.columns {json.dumps({field: truncate(column, 40)}, ensure_ascii=False)} does"
                )
            beside[field] = column
    return beside


def _advice(question: str, answer: str) -> str:
    columns = {"instruction": truncate(question, 40), "output": truncate(answer, 40)}
    return f"dataset.columns {json.dumps(columns, ensure_ascii=False)}"


def _unclear(problem: str) -> BadFile:
    return BadFile(f"has columns that could be read in more than one way: {problem}", "dataset.columns")
