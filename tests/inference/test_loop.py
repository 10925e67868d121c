"""Each answer is what the same request gets alone, from plain PEFT."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from contract.inference import LINE, Piece, Refusal, Sampling
from inference.batch import PaddedBatch, Singles
from inference.row import BASE, AnswerRow
from inference.token_room import bytes_of_token, token_room
from tests.inference.conftest import ADAPTERS
from tests.inference.running_loop import TEXTS, RunningLoop, lines, logprobs_of, pieces, plain, request, text_of


def test_mixed_answers_equal_those_of_plain_peft(loop: RunningLoop, untied: Path, adapters: dict[str, Path]) -> None:
    wanted = [(text, name) for text in TEXTS for name in (None, *adapters)]
    sent = [loop.submit(text, adapters[name] if name else None) for text, name in wanted]
    said = set()
    for (text, name), answers in zip(wanted, sent, strict=True):
        found = pieces(answers)
        tokens, scores = plain(untied, adapters.get(name or ""), answers.prompt, [2], 12)
        said.add((text, text_of(found)))
        assert text_of(found) == loop.prompts._own.decode(tokens, skip_special_tokens=True), name
        torch.testing.assert_close(torch.tensor(logprobs_of(found)), scores, rtol=1e-4, atol=1e-4)
    assert len(said) > len(wanted) // 2  # the adapters differ


@pytest.mark.parametrize(
    ("kind", "batched"), [("gemma2", PaddedBatch), ("bloom", PaddedBatch), ("qwen3_next", Singles)]
)
def test_architecture_answers_as_it_does_alone(
    make_model: Callable[[str], Path], kind: str, batched: type[PaddedBatch] | type[Singles]
) -> None:
    model = make_model(kind)
    with RunningLoop(model) as loop:
        assert loop.kind is batched
        sent = [loop.submit(text, max_tokens=6) for text in TEXTS]
        for answers in sent:
            found = pieces(answers)
            tokens, scores = plain(model, None, answers.prompt, [2], 6)
            assert text_of(found) == loop.prompts._own.decode(tokens, skip_special_tokens=True)
            torch.testing.assert_close(torch.tensor(logprobs_of(found)), scores, rtol=1e-4, atol=1e-4)


def test_seed_repeats_beside_other_requests(loop: RunningLoop, adapters: dict[str, Path]) -> None:
    first = loop.answer(TEXTS[0], adapters["plain"], n=3, temperature=1.5, seed=7)
    others = [loop.submit(text, temperature=1.0) for text in TEXTS]
    again = loop.answer(TEXTS[0], adapters["plain"], n=3, temperature=1.5, seed=7)
    several = [text_of(first, index) for index in range(3)]
    assert [text_of(again, index) for index in range(3)] == several
    assert len(set(several)) == 3
    assert text_of(loop.answer(TEXTS[0], adapters["plain"], temperature=1.5, seed=8)) not in several
    for answers in others:
        pieces(answers)


def test_small_nucleus_takes_the_most_likely(loop: RunningLoop) -> None:
    greedy = text_of(loop.answer(TEXTS[1]))
    assert text_of(loop.answer(TEXTS[1], temperature=1.0, top_p=1e-6)) == greedy


@pytest.mark.parametrize(
    "sampling", [{"temperature": 1.0, "top_p": 0.0}, {"temperature": 4e-38}, {"temperature": 5e-324}]
)
def test_least_chance_is_the_most_likely_token(loop: RunningLoop, sampling: dict[str, Any]) -> None:
    assert text_of(loop.answer(TEXTS[1], **sampling)) == text_of(loop.answer(TEXTS[1]))


@given(
    st.lists(st.floats(-1e4, 1e4, width=32) | st.just(-math.inf), min_size=1, max_size=30),
    st.floats(0, 2),
    st.floats(0, 1),
)
def test_any_sampling_chooses_a_possible_token(logits: list[float], temperature: float, top_p: float) -> None:
    row = AnswerRow(BASE, [1], Sampling(temperature=temperature, top_p=top_p, seed=1), 0)
    if max(logits) == -math.inf:
        with pytest.raises(FloatingPointError):
            row.choose(torch.tensor(logits))
    else:
        assert logits[row.choose(torch.tensor(logits))] > -math.inf


def test_output_that_is_no_number_ends_one_request(
    loop: RunningLoop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    choose = AnswerRow.choose

    def broken(row: AnswerRow, logits: torch.Tensor) -> int:
        spoiled = row.sampling.seed == 13 and row.index == 1 and len(row.tokens) > 20
        return choose(row, logits * math.nan if spoiled else logits)

    monkeypatch.setattr(AnswerRow, "choose", broken)
    good = loop.submit(TEXTS[0], max_tokens=60)
    bad = loop.submit(TEXTS[0], max_tokens=60, n=3, temperature=1.0, seed=13)
    *_, refusal = lines(bad)
    assert isinstance(refusal, Refusal)
    assert "no number" in refusal.message
    assert pieces(good)[-1].finish
    assert text_of(loop.answer(TEXTS[1]))


def test_impossible_tokens_have_a_finite_logprob(loop: RunningLoop) -> None:
    answers = loop.submit(TEXTS[0], max_tokens=1)
    row = AnswerRow(BASE, [*answers.prompt], answers.sampling, 0)
    scored = answers._score(row.choose(torch.tensor([0.0, -math.inf])), torch.tensor([-math.inf, 0.0]))
    assert scored.logprob == -9999
    assert LINE.validate_json(Piece(index=0, tokens=[scored]).model_dump_json())


@pytest.mark.parametrize("text", TEXTS)
def test_row_without_memory_to_join_ends_alone(
    untied: Path, text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop = RunningLoop(untied)
    batch = PaddedBatch(loop.adapters)
    wanted, others = loop.prompts.read(request(TEXTS[1])), loop.prompts.read(request(text, n=2))
    (row,), cat, joins = wanted.begin(BASE), torch.cat, iter(range(100))

    def cat_without_memory(*args: Any, **given: Any) -> torch.Tensor:
        if sys._getframe(1).f_code.co_name == "<genexpr>" and next(joins) == 3:
            raise torch.OutOfMemoryError
        return cat(*args, **given)

    with torch.inference_mode():
        row.choose(batch.add([row]))
        before = [(layer.keys, layer.values) for layer in batch._cache.layers]
        monkeypatch.setattr(torch, "cat", cat_without_memory)
        with pytest.raises(torch.OutOfMemoryError):
            batch.add(others.begin(BASE))
        monkeypatch.undo()
        for layer, (keys, values) in zip(batch._cache.layers, before, strict=True):
            assert torch.equal(layer.keys, keys)
            assert torch.equal(layer.values, values)
        assert batch.rows == [row]
        assert batch.step().shape[0] == 1


def test_stop_string_ends_before_its_text(loop: RunningLoop) -> None:
    whole = text_of(loop.answer(TEXTS[0], max_tokens=40))
    assert len(whole) > 6
    stop = whole[4:6]
    found = loop.answer(TEXTS[0], max_tokens=40, stop=["never", stop])
    assert text_of(found) == whole[: whole.index(stop)]
    assert found[-1].finish == "stop"


def test_used_up_tokens_finish_by_length(loop: RunningLoop) -> None:
    found = loop.answer(TEXTS[0], max_tokens=3, logprobs=2)
    assert found[-1].finish == "length"
    scored = [token for piece in found for token in piece.tokens]
    assert len(scored) == 3
    for token in scored:
        assert (token.text, token.logprob) == token.top[0]
        assert token.top[0][1] >= token.top[1][1]


def test_least_recently_used_adapter_makes_room(untied: Path, adapters: dict[str, Path]) -> None:
    chosen = [adapters[name] for name in list(ADAPTERS)[:3]]
    with RunningLoop(untied, most_adapters=2) as loop:
        first = [text_of(loop.answer(TEXTS[0], adapter)) for adapter in chosen]
        assert list(loop.adapters._names) == chosen[1:]
        sent = [loop.submit(TEXTS[0], adapter) for adapter in chosen * 3]
        assert [text_of(pieces(answers)) for answers in sent] == first * 3


def test_adapter_that_fails_to_load_leaves_nothing(
    loop: RunningLoop, adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base = text_of(loop.answer(TEXTS[0]))
    load = PeftModel.load_adapter

    def fail(*args: Any, **given: Any) -> None:
        load(*args, **given)
        raise torch.OutOfMemoryError

    for name in ("plain", "dora", "with a head"):
        with monkeypatch.context() as patch:
            patch.setattr(PeftModel, "load_adapter", fail)
            (refusal,) = lines(loop.submit(TEXTS[0], adapters[name]))
        assert isinstance(refusal, Refusal)
        assert "memory" in refusal.message
        assert not [name for name, _ in loop.adapters.base.named_parameters() if "adapter-" in name]
        assert text_of(loop.answer(TEXTS[0])) == base
    assert text_of(loop.answer(TEXTS[0], adapters["plain"])) != base


def test_reader_that_leaves_frees_its_place(untied: Path) -> None:
    with RunningLoop(untied, most=1) as loop:
        leaver = loop.submit(TEXTS[0], max_tokens=400)
        leaver.lines.get(timeout=60)
        leaver.cancelled = True
        assert text_of(loop.answer(TEXTS[1], max_tokens=2))


def test_answers_under_way_stay_within_the_room(untied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used, step = [], PaddedBatch.step

    def watched(batch: PaddedBatch) -> torch.Tensor:
        logits = step(batch)
        used.append(batch._mask.numel())
        return logits

    monkeypatch.setattr(PaddedBatch, "step", watched)
    room = 150
    with RunningLoop(untied, room=room) as loop:
        wanted = [(text, n, most) for text in TEXTS for n in (1, 2) for most in (2, 9, 20)]
        sent = [loop.submit(text, n=n, max_tokens=most) for text, n, most in wanted]
        assert all(pieces(answers) for answers in sent)
    assert room / 2 < max(used) <= room


def test_request_beyond_the_room_is_refused_alone(untied: Path) -> None:
    with RunningLoop(untied, room=50) as loop:
        long = loop.loop.submit(loop.prompts.read(request(TEXTS[0], n=2, max_tokens=40)))
        assert long is not None
        assert (long.code, long.param) == ("context_length_exceeded", "max_tokens")
        assert "more than the 50 that fit" in long.message
        assert text_of(loop.answer(TEXTS[2], max_tokens=4))


def test_bytes_of_a_token_are_those_of_its_keys_and_values(untied: Path) -> None:
    base = RunningLoop(untied).adapters.base
    config = base.config
    size = config.hidden_size // config.num_attention_heads
    assert bytes_of_token(base) == 2 * config.num_hidden_layers * config.num_key_value_heads * size * 4
    assert token_room(base) > 0


def test_stopped_loop_ends_what_it_has_begun(untied: Path) -> None:
    loop = RunningLoop(untied, most=1)
    with loop:
        begun = loop.submit(TEXTS[0], max_tokens=30)
        begun.lines.get(timeout=60)
        waiting = loop.submit(TEXTS[1])
        loop.loop.stop()
        refusal = waiting.lines.get(timeout=60)
        assert isinstance(refusal, Refusal)
        assert refusal.retry
        assert begun.lines.get(timeout=60)
    assert loop.loop.submit(waiting) is not None


def test_folder_that_is_no_adapter_of_the_base_is_refused(loop: RunningLoop, tmp_path: Path) -> None:
    (refusal,) = lines(loop.submit(TEXTS[0], tmp_path))
    assert isinstance(refusal, Refusal)
    assert refusal.param == "model"
    assert text_of(loop.answer(TEXTS[0]))
