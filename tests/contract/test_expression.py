import pytest

from contract import expression
from contract.expression import full_matches
from contract.failure import InputError

NAMES = frozenset({"model.layers.0.q_proj", "model.layers.1.q_proj", "lm_head"})


def test_equal_questions_start_one_process() -> None:
    full_matches.cache_clear()
    for _ in range(3):
        assert full_matches("p", r".*q_proj|lm", NAMES) == NAMES - {"lm_head"}
    assert full_matches.cache_info().misses == 1


def test_expression_that_takes_forever_is_ended_and_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression, "_SECONDS", 0.3)
    for _ in range(6):  # more than run at once: each gives its place back
        with pytest.raises(InputError, match=r"p: .* takes too long to match") as caught:
            full_matches("p", "(.+)+!", frozenset({"a" * 60}))
    assert caught.value.failure.param == "p"
