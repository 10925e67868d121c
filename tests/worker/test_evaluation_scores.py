import math
from typing import Any

import pytest

from contract.evaluation import EvaluatedExample, ModelAnswer
from worker.evaluating.scores import row_of, scores_of


def row(answer: str, reference: str, loss: float = 1.0, tokens: int = 3) -> dict[str, Any]:
    of_model = ModelAnswer(loss=loss, answer=answer, finish="stop")
    other = ModelAnswer(loss=0.5, answer=reference, finish="stop")
    example = EvaluatedExample(
        number=1, prompt="?", reference=reference, supervised_tokens=tokens, base=of_model, adapter=other
    )
    return row_of(example)


@pytest.mark.parametrize(
    ("answer", "reference", "exact_match", "token_f1", "rouge_l"),
    [
        # ROUGE-L as rouge-score 0.1.2 has it.
        ("A quick, brown dog jumps over the fox", "The quick brown fox jumps over the lazy dog.", 0, 14 / 17, 10 / 17),
        ("police kill the gunman", "police killed the gunman", 0, 0.75, 0.75),
        ("the gunman kill police", "police killed the gunman", 0, 0.75, 0.5),
        ("Four!", "four", 0, 1, 1),
        ("e d c b a", "a b c d e", 0, 1, 0.2),
        ("42 it is", "It is 42, of course: x1", 0, 2 / 3, 4 / 9),
        (" So it\n is. ", "So it is.", 1, 1, 1),
        ("", "", 1, 1, 1),
        ("", "words", 0, 0, 0),
        # No spaces divide these into words.
        ("我喜欢茶", "我喜欢绿茶", 0, 8 / 9, 8 / 9),
        ("GPT很好", "gpt 不好", 0, 2 / 3, 2 / 3),
        # Vowel signs are parts of words.
        ("की", "का", 0, 0, 0),
        ("नमस्ते दुनिया", "नमस्ते लोग", 0, 0.5, 0.5),
        ("ที่นี่", "ที่นั่น", 0, 0, 0),
        ("caf\u00e9", "cafe\u0301", 1, 1, 1),
        # Without words there is nothing but the text.
        ("👍", "👎", 0, 0, 0),
        ("👍 ", "👍", 1, 1, 1),
        ("", "✓", 0, 0, 0),
        ("-", "minus", 0, 0, 0),
    ],
)
def test_answer_is_scored_beside_its_reference(
    answer: str, reference: str, exact_match: float, token_f1: float, rouge_l: float
) -> None:
    scored = row(answer, reference)["base"]
    found = (scored["exact_match"], scored["token_f1"], scored["rouge_l"])
    assert found == pytest.approx((exact_match, token_f1, rouge_l))


def test_scores_weigh_losses_by_tokens_and_answers_equally() -> None:
    found = scores_of([row("four", "four", loss=1.0, tokens=1), row("five", "six", loss=3.0, tokens=3)])
    assert (found["examples"], found["supervised_tokens"]) == (2, 4)
    assert found["base"] == pytest.approx(
        {"loss": 2.5, "perplexity": math.exp(2.5), "exact_match": 0.5, "token_f1": 0.5, "rouge_l": 0.5}
    )
    assert found["adapter"]["exact_match"] == 1


def test_perplexity_beyond_all_numbers_is_none() -> None:
    assert scores_of([row("a", "b", loss=800.0)])["base"]["perplexity"] is None
