"""Formats with separate fields for question and answer: Alpaca, Self-Instruct, BELLE and Chinese-Vicuna."""

from dataclasses import replace
from typing import Any

from contract.formatting import format_value
from dataset.example import ChatMessage, Conversation, conversation
from dataset.fields import Row, as_list, as_text, optional_list, optional_text, required_answer
from dataset.formats.sharegpt import from_sharegpt
from dataset.formats.tool_use import read_tools
from dataset.refusal import BadRow, NoAnswer


def from_alpaca(row: Row) -> Conversation:
    """{"instruction": ..., "input": ..., "output": ..., "system": ..., "history": [[question, answer], ...], "tools":
    [...]}

    Instruction and input form one question, with an empty line between them. The history comes first, and its answers
    are learned too.
    """
    question = read_question(row)
    output = required_answer(row, "output")
    return _conversation([*read_history(row), (question, output)], row)


def read_question(row: Row) -> str:
    """Instruction and input as one text."""
    instruction, input = (optional_text(row, name) for name in ("instruction", "input"))
    if not instruction.strip():
        raise BadRow("instruction is empty")
    return "\n\n".join(part for part in (instruction, input) if part)


def read_history(row: Row) -> list[tuple[str, str]]:
    """Earlier questions, each with its answer."""
    given = optional_list("history", row.get("history"), "pair of a question and its answer")
    return [_pair(f"history[{index}]", pair) for index, pair in enumerate(given)]


def from_self_instruct(row: Row) -> list[Conversation]:
    """{"instruction": ..., "instances": [{"input": ..., "output": ...}, ...]}: one example per instance."""
    found = []
    for number, instance in enumerate(as_list("instances", row.get("instances"), "instance"), start=1):
        if not isinstance(instance, dict):
            raise BadRow(f"instance {number}: must be an object with input and output, not {format_value(instance)}")
        fields = {name: row.get(name) for name in ("instruction", "system", "tools")}
        try:
            example = from_alpaca(fields | {name: instance[name] for name in ("input", "output") if name in instance})
        except BadRow as error:
            raise BadRow(f"instance {number}: {error}") from error
        found.append(replace(example, where=f"instance {number}"))
    return found


def from_belle(row: Row) -> Conversation:
    """{"input": ..., "target": ..., "system": ..., "tools": [...]}, or ShareGPT's conversations."""
    if "conversations" in row:
        return from_sharegpt(row)
    question = optional_text(row, "input")
    if not question.strip():
        raise BadRow("input is empty")
    return _conversation([(question, required_answer(row, "target"))], row)


def from_chinese_vicuna(row: Row) -> Conversation:
    """{"input": [question, ...], "output": [answer, ...]}, with one answer per question."""
    questions, answers = (as_list(name, row.get(name), "text") for name in ("input", "output"))
    if len(questions) != len(answers):
        raise BadRow(f"input has {len(questions)} texts and output {len(answers)}; give each question its answer")
    turns = [
        (as_text(f"input[{index}]", question), as_text(f"output[{index}]", answer))
        for index, (question, answer) in enumerate(zip(questions, answers, strict=True))
    ]
    if not any(answer.strip() for _, answer in turns):
        raise NoAnswer("has no answer: every output is empty")
    return _conversation(turns, row)


def _pair(where: str, pair: Any) -> tuple[str, str]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise BadRow(f"{where} must be a list of a question and its answer, not {format_value(pair)}")
    return as_text(f"{where}[0]", pair[0]), as_text(f"{where}[1]", pair[1])


def _conversation(turns: list[tuple[str, str]], row: Row) -> Conversation:
    system = optional_text(row, "system")
    messages: list[ChatMessage] = [{"role": "system", "content": system}] if system else []
    for question, answer in turns:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return conversation(messages, read_tools(row.get("tools")))
