"""Scores of answers beside reference answers, and of all examples together."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rapidfuzz.distance import LCSseq

from contract.evaluation import EvaluatedExample, ModelAnswer

MODELS = ("base", "adapter")
_OF_TEXT = ("exact_match", "token_f1", "rouge_l")

# Kana and Han, which are written without spaces.
_ALONE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def row_of(example: EvaluatedExample) -> dict[str, Any]:
    """The example as it is kept, with the scores of both answers."""
    row = example.model_dump(mode="json", exclude={"type", *MODELS})
    scored = {name: _scored(getattr(example, name), example.reference) for name in MODELS}
    return {**row, **scored}


def _scored(of_model: ModelAnswer, reference: str) -> dict[str, Any]:
    # One letter with an accent may be written as two characters.
    answer, reference = (unicodedata.normalize("NFC", text) for text in (of_model.answer, reference))
    is_same = answer.split() == reference.split()
    said, wanted = _words(answer), _words(reference)
    return {
        **of_model.model_dump(mode="json"),
        "exact_match": float(is_same),
        "token_f1": _f1((Counter(said) & Counter(wanted)).total(), said, wanted, is_same),
        "rouge_l": _f1(LCSseq.similarity(said, wanted), said, wanted, is_same),
    }


def _words(text: str) -> list[str]:
    """In lower case, without punctuation."""
    return "".join(map(_part_of_word, unicodedata.normalize("NFC", text.lower()))).split()


def _part_of_word(character: str) -> str:
    """The character, or a space where it belongs to no word. Marks are the vowels of many scripts."""
    if _ALONE.match(character):
        return f" {character} "
    is_part = character.isalnum() or unicodedata.category(character).startswith("M")
    return character if is_part else " "


def _f1(common: int, said: Sequence[str], wanted: Sequence[str], is_same: bool) -> float:
    """The harmonic mean of the share of `said` that is right and the share of `wanted` that was said. Of two texts
    without words, whether they are the same."""
    return 2 * common / (len(said) + len(wanted)) if said or wanted else float(is_same)


def scores_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of both models over all rows, of which there is one at least. The loss is the mean over all supervised
    tokens, as in a job's own evaluation; the others are means over the examples."""
    examples = tokens = 0
    sums = {name: dict.fromkeys(("loss", *_OF_TEXT), 0.0) for name in MODELS}
    for row in rows:
        examples += 1
        tokens += row["supervised_tokens"]
        for name, its in sums.items():
            its["loss"] += row[name]["loss"] * row["supervised_tokens"]
            for score in _OF_TEXT:
                its[score] += row[name][score]
    found: dict[str, Any] = {"examples": examples, "supervised_tokens": tokens}
    for name, its in sums.items():
        loss = its["loss"] / tokens
        of_text = {score: its[score] / examples for score in _OF_TEXT}
        found[name] = {"loss": loss, "perplexity": _perplexity(loss), **of_text}
    return found


def _perplexity(loss: float) -> float | None:
    """None where it is beyond all numbers."""
    try:
        return math.exp(loss)
    except OverflowError:
        return None
