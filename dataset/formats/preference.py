"""Pairs of answers to one prompt, of which one is better.

The prompt is a text or messages in a field of its own, or the common beginning of two whole conversations. So the rows
of OpenAI (input, preferred_output, non_preferred_output), TRL (prompt, chosen, rejected), LLaMA-Factory (conversations
or instruction; v1: chosen_messages, rejected_messages), ms-swift (messages, rejected_response) and Anthropic HH (texts
of Human and Assistant) are read alike.
"""

import re
from collections.abc import Mapping
from typing import Any

from contract.dataset_format import DatasetField
from contract.formatting import format_value
from dataset.example import ChatMessage, Conversation, Preference, has_content
from dataset.fields import Row, as_text, is_blank, list_names, optional_text
from dataset.formats.alpaca import read_history, read_question
from dataset.formats.messages import read_messages
from dataset.formats.sharegpt import read_turns
from dataset.formats.tool_use import read_tools
from dataset.formats.turns import Turn, as_conversation
from dataset.refusal import BadRow, NoAnswer

PAIR_NAMES: Mapping[str, DatasetField] = {
    "preferred_output": "chosen",
    "non_preferred_output": "rejected",
    "preferred_completion": "chosen",
    "non_preferred_completion": "rejected",
    "chosen_messages": "chosen",
    "rejected_messages": "rejected",
    "chosen_response": "chosen",
    "rejected_response": "rejected",
}
"""Other names of the two answers: OpenAI's, now and before; LLaMA-Factory v1's; those of UltraFeedback and ms-swift."""
PROMPTS = ("prompt", "messages", "conversations", "instruction", "input")
"""Fields that can have the prompt, of which a row has one; input is also the second part of an instruction."""

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


def has_pair(row: Row) -> bool:
    """Whether a row has two answers, under any of their names."""
    filled = {PAIR_NAMES.get(name, name) for name, value in row.items() if not is_blank(value)}
    return "rejected" in filled and not filled.isdisjoint(("chosen", "messages"))


def require_pair(row: Row) -> None:
    """Raises BadRow if a row does not have two answers, under any of their names."""
    _check_pair(unpack_row({PAIR_NAMES.get(name, name): value for name, value in row.items()}))


def _check_pair(row: Row) -> None:
    if "chosen" not in row and "rejected" not in row:
        raise BadRow(
            f"has no pair of answers, only {list_names(row)}; give prompt, chosen and rejected. A row with one answer "
            'is learned with method "sft", or with "kto" if it has a rating'
        )
    for name, other in (("chosen", "rejected"), ("rejected", "chosen")):
        if name not in row:
            raise NoAnswer(f"has no answer: no {name} beside {other}; dataset.columns can say which column it is")
        if is_blank(row[name]):
            raise NoAnswer(f"has no answer: {name} is empty")


def unpack_row(row: Row) -> Row:
    """The row with the fields of OpenAI's input beside the answers, or with ms-swift's better answer as chosen."""
    given = row.get("input")
    if isinstance(given, dict) and given:
        if is_blank(given.get("messages")):
            raise BadRow(f"input must be a text, or an object with messages, not {format_value(given)}")
        inside = {name: value for name, value in given.items() if not is_blank(value)}
        for name in inside:
            if not is_blank(row.get(name)):
                raise BadRow(f"has both {name} and input.{name}; give one of them")
        row = {name: value for name, value in row.items() if name != "input"} | inside
    elif is_blank(row.get("chosen")) and not (is_blank(row.get("messages")) or is_blank(row.get("rejected"))):
        row = _with_messages_as_chosen(row)
    return row


def _with_messages_as_chosen(row: Row) -> Row:
    others = {name: value for name, value in row.items() if name != "messages"}
    if not isinstance(row["rejected"], str):
        return others | {"chosen": row["messages"]}
    messages = row["messages"]
    if not isinstance(messages, list) or not isinstance(messages[-1], dict) or messages[-1].get("role") != "assistant":
        raise BadRow("messages must end with the assistant's better answer, since rejected has only the other one")
    return others | {"messages": messages[:-1], "chosen": messages[-1]}


def from_preference(row: Row) -> Preference:
    """{"prompt": ..., "chosen": ..., "rejected": ...}: the answers are texts, messages or turns, or whole conversations
    that begin alike. What is before the answers is not learned."""
    _check_pair(row)
    chosen, rejected = (_read_answer(row, name) for name in ("chosen", "rejected"))
    _check_end("chosen", chosen)
    _check_end("rejected", rejected)
    if _begins_with_answer(chosen) and _begins_with_answer(rejected):
        prompt = _read_prompt(row)
    else:
        count = _count_common(chosen, rejected)
        _check_other_prompts(row, chosen)
        prompt, chosen, rejected = chosen[:count], chosen[count:], rejected[count:]
    return Preference(_conversation(row, prompt, "chosen", chosen), _conversation(row, prompt, "rejected", rejected))


def _read_answer(row: Row, name: str) -> list[Turn]:
    value = row[name]
    if not isinstance(value, str):
        return _read_list(name, [value] if isinstance(value, dict) else value)
    prompt, text = row.get("prompt"), as_text(name, value)
    if isinstance(prompt, str) and _is_dialogue(prompt):
        return _read_dialogue(name, text if text.startswith(prompt) else prompt + text)
    if _is_dialogue(text) and all(is_blank(row.get(other)) for other in PROMPTS):
        return _read_dialogue(name, text)
    return [({"role": "assistant", "content": text}, True)]


def _read_list(name: str, value: Any) -> list[Turn]:
    first = value[0] if isinstance(value, list) and value else None
    is_sharegpt = name == "conversations" or (isinstance(first, dict) and "from" in first and "role" not in first)
    return read_turns(name, value) if is_sharegpt else read_messages(name, value)


def _is_dialogue(text: str) -> bool:
    return text.lstrip().startswith("Human:") and "\n\nAssistant:" in text


def _read_dialogue(name: str, text: str) -> list[Turn]:
    r"""The turns of a text such as "\n\nHuman: ...\n\nAssistant: ..."."""
    parts = _SPEAKER.split("\n\n" + text.lstrip())[1:]
    turns: list[Turn] = []
    for index, (speaker, said) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        if speaker != ("Human", "Assistant")[index % 2]:
            raise BadRow(
                f"{name} has two turns of {speaker} in a row, so that it is unclear where one ends; {_AS_LISTS}"
            )
        turns.append((_message(index, said.strip()), True))
    if len(turns) % 2:
        raise BadRow(f"{name} ends with a turn of Human; end it with the answer, as Assistant")
    return turns


_AS_LISTS = "give chosen and rejected as lists of messages"


def _begins_with_answer(turns: list[Turn]) -> bool:
    return turns[0][0]["role"] in ("assistant", "tool")


def _read_prompt(row: Row) -> list[Turn]:
    """Answers in the prompt are not learned."""
    given = [name for name in PROMPTS if not is_blank(row.get(name))]
    if not given:
        raise BadRow(f"has chosen and rejected, and no prompt; give the question as prompt, or {_AS_LISTS}")
    name = given[0]
    second = next((each for each in given[1:] if (name, each) != ("instruction", "input")), None)
    if second is not None:
        raise BadRow(f"has both {name} and {second} as the prompt; give one of them")
    if name != "instruction" and not is_blank(row.get("history")):
        raise BadRow(f"history is {format_value(row['history'])}; beside {name}, give all earlier turns in {name}")
    if name == "instruction":
        texts = [text for pair in read_history(row) for text in pair] + [read_question(row)]
        return [(_message(index, text), False) for index, text in enumerate(texts)]
    if isinstance(row[name], str) and name in ("prompt", "input"):
        return [(_message(0, as_text(name, row[name])), False)]
    return [(message, False) for message, _ in _read_list(name, row[name])]


def _message(index: int, text: str) -> ChatMessage:
    return {"role": ("user", "assistant")[index % 2], "content": text}


def _count_common(chosen: list[Turn], rejected: list[Turn]) -> int:
    """The number of turns with which both conversations begin, before an answer of each. Raises BadRow if something
    other than an answer is the first to differ."""
    pairs = enumerate(zip(chosen, rejected, strict=False))
    differs = next((index for index, (one, other) in pairs if one[0] != other[0]), min(len(chosen), len(rejected)))
    count = min(differs, _last_answer("chosen", chosen), _last_answer("rejected", rejected))
    if not count or any(turns[count][0]["role"] != "assistant" for turns in (chosen, rejected)):
        raise BadRow(
            f"chosen[{count}] and rejected[{count}] differ before any answer; give both conversations the same prompt, "
            "up to the answers"
        )
    return count


def _check_end(name: str, turns: list[Turn]) -> None:
    if turns[-1][0]["role"] != "assistant":
        raise NoAnswer(f"has no answer: {name} ends with a message of role {turns[-1][0]['role']}")


def _last_answer(name: str, turns: list[Turn]) -> int:
    answers = [index for index, (message, learned) in enumerate(turns) if learned and _is_answer(message)]
    if not answers:
        raise NoAnswer(f"has no answer: {name} has no message of the assistant with content and a weight other than 0")
    return answers[-1]


def _is_answer(message: ChatMessage) -> bool:
    return message["role"] == "assistant" and has_content(message)


def _check_other_prompts(row: Row, chosen: list[Turn]) -> None:
    """Raises BadRow if a prompt beside whole conversations says something else than they do."""
    messages = [message for message, _ in chosen]
    without_system = [message for message in messages if message["role"] != "system"]
    questions = [message["content"].strip() for message in messages if message["role"] == "user"]
    for name in PROMPTS:
        value = row.get(name)
        if is_blank(value):
            continue
        if isinstance(value, str) and name not in ("messages", "conversations"):
            # A dialogue that is prompt and answer in two texts has been put together.
            is_same = value.strip() in questions or (_is_dialogue(value) and isinstance(row["chosen"], str))
        else:
            prompt = [message for message, _ in _read_list(name, value)]
            is_same = prompt in (messages[: len(prompt)], without_system[: len(prompt)])
        if not is_same:
            raise BadRow(f"{name} differs from the beginning of chosen, which is a whole conversation; leave one out")


def _conversation(row: Row, prompt: list[Turn], name: str, answer: list[Turn]) -> Conversation:
    unlearned = [(message, False) for message, _ in prompt]
    found = as_conversation([*unlearned, *answer], optional_text(row, "system"), read_tools(row.get("tools")))
    if not any(found.supervised):
        raise NoAnswer(f"has no answer: {name} has no message of the assistant with content and a weight other than 0")
    return found
