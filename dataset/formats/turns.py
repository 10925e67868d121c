"""Fields that OpenAI's messages and ShareGPT's turns share: whether a turn is learned, and its reasoning.

docs/data.md has them as a table for users.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from contract.formatting import format_value
from dataset.example import ChatMessage, Conversation, conversation
from dataset.fields import as_text, is_blank
from dataset.formats.tool_use import Tools
from dataset.refusal import BadRow

Turn = tuple[ChatMessage, bool]
"""A message, and whether it is learned if the assistant wrote it."""

WEIGHTS = (
    *("weight", "train", "training", "loss", "loss_weight", "loss_scale"),
    *("loss_mask", "step_loss_mask", "trainable", "output_with_loss"),
)
"""Fields that say whether a message is learned: OpenAI's, Axolotl's (train, training), ms-swift's (loss, loss_scale),
LLaMA-Factory v1's (loss_weight), slime's (step_loss_mask), Tinker's (trainable) and XTuner's (output_with_loss)."""
REASONING = ("reasoning_content", "thinking", "reasoning")
"""Fields with an answer's reasoning: DeepSeek's and most others', gpt-oss's, and OpenRouter's and vLLM's."""

MEDIA = ("image", "images", "video", "videos", "audio", "audios")
NO_MEDIA = "only text is learned here; leave such rows out"
_NO_PART = "an answer is learned whole; give the message a weight of 0 or 1"
_NO_MASK = "it is unclear which value masks; give the message a weight of 0 or 1"
_NO_PREFIX = "an answer is learned from its beginning; leave it out, or give the message a weight of 0"
_NO_TOOLS = "give them as tools of the row, beside its messages"
REFUSED: Mapping[str, str] = {
    "function_call": "OpenAI has replaced it; give it as tool_calls",
    "refusal": "give what the assistant says as content",
    # OLMo 3's templates read these two.
    "function_calls": "give them as tool_calls",
    "functions": _NO_TOOLS,
    "tools": _NO_TOOLS,
    **dict.fromkeys(("mask", "masked", "label"), _NO_MASK),
    **dict.fromkeys(("train_detail", "training_detail", "reasoning_training_detail"), _NO_PART),
    **dict.fromkeys(("prefix", "partial"), _NO_PREFIX),
    **dict.fromkeys(("reasoning_details", "thinking_blocks", "tool_plan"), "give what it thinks as reasoning_content"),
    **dict.fromkeys(MEDIA, NO_MEDIA),
}
"""Fields that are refused, with what to do instead."""

_CHECKED = frozenset({*REFUSED, "channel"})
_READ = ("role", "content", "name", "tool_calls", "tool_call_id", "from", "value", "channel")
TURN_FIELDS = frozenset({*_READ, *WEIGHTS, *REASONING, *REFUSED})
"""All fields that are read or refused."""


def check_turn(where: str, turn: Mapping[str, Any]) -> None:
    """Raises BadRow for fields that are not supported."""
    if turn.keys().isdisjoint(_CHECKED):
        return
    for name, advice in REFUSED.items():
        value = turn.get(name)
        if not (is_blank(value) or (name in ("prefix", "partial") and value is False)):
            raise BadRow(f"{where}.{name} is {format_value(value)}; {advice}")
    # gpt-oss writes in channels; its template takes the analysis as a field of the answer.
    if turn.get("channel") not in (None, "", "final"):
        raise BadRow(
            f"{where}.channel is {format_value(turn['channel'])}; give an analysis as reasoning_content of the answer "
            "after it"
        )


def is_learned(where: str, role: str, turn: Mapping[str, Any], parts: Sequence[Mapping[str, Any]] = ()) -> bool:
    """Whether a turn is learned, from all weights of the turn and of its content's parts. Raises BadRow if they
    disagree, if one is neither 0 nor 1, and for a 1 on a turn that is not the assistant's."""
    if turn.keys().isdisjoint(WEIGHTS) and not parts:
        return True
    weights = {f"{where}.{name}": turn[name] for name in WEIGHTS if turn.get(name) is not None}
    of_parts = [next((part[name] for name in WEIGHTS if part.get(name) is not None), None) for part in parts]
    if any(weight is not None for weight in of_parts):
        of_turn = next(iter(weights.values()), 1)
        for index, weight in enumerate(of_parts):
            weights[f"{where}.content[{index}]"] = of_turn if weight is None else weight
    for name, weight in weights.items():
        if weight not in (0, 1):
            raise BadRow(f"{name} is {format_value(weight)}; 1 or true learns an answer, 0 or false does not")
        if weight and role != "assistant":
            raise BadRow(
                f"{name} is {format_value(weight)}, and a message of role {role} is never learned; leave it out"
            )
    if len({bool(weight) for weight in weights.values()}) > 1:
        raise BadRow(f"{where} is to be learned by {_names(weights, 1)} and not by {_names(weights, 0)}; {_NO_PART}")
    return all(weights.values())


def _names(weights: Mapping[str, Any], value: int) -> str:
    return ", ".join(name for name, weight in weights.items() if weight == value)


def read_reasoning(where: str, turn: Mapping[str, Any], names: Collection[str] = REASONING) -> str:
    """The turn's reasoning; empty if it has none."""
    if turn.keys().isdisjoint(names):
        return ""
    found = {name: as_text(f"{where}{name}", turn[name]) for name in names if turn.get(name) is not None}
    written = {name: thought for name, thought in found.items() if thought.strip()}
    if len(set(written.values())) > 1:
        raise BadRow(f"{where}{' and '.join(written)} differ; keep the one to learn")
    return next(iter(written.values()), "")


def as_conversation(turns: list[Turn], system: str, tools: Tools | None) -> Conversation:
    """A conversation with the row's system message first, unless the turns begin with the same one. Raises BadRow."""
    if system:
        first = turns[0][0] if turns else None
        if first is None or first["role"] != "system":
            turns = [({"role": "system", "content": system}, False), *turns]
        elif first["content"] != system:
            raise BadRow("system differs from the system message of the conversation; keep one of them")
    left_out = frozenset(index for index, (_, learned) in enumerate(turns) if not learned)
    return conversation([message for message, _ in turns], tools, left_out)
