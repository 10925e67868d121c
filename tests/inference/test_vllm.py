"""What vLLM answers, by a fake of its routes that runs the model with transformers and PEFT."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from contract.evaluation import EvaluatedExample, EvaluationRequest
from contract.failure import Failure, FailureCode
from contract.inference import READY, SPEC, Call, Piece, PromptTokens, Refusal
from contract.run_dir import RunDir
from dataset.document import Document
from dataset.rendering.prompt import text_prompt
from inference.evaluation import evaluate
from inference.scoring import Scoring
from inference.vllm.engine import VllmEnded
from tests.inference.running_loop import (
    TEXTS,
    evaluation_request,
    lines,
    logprobs_of,
    pieces,
    plain,
    plain_loss,
    request,
    text_of,
)
from tests.inference.running_vllm import RunningVllm, running_vllm, server_spec
from tests.support.waiting import until

ANSWERED = ("plain", "of two modules", "with ranks by module")
"""Adapters with a portable form."""
LOAD, UNLOAD, COMPLETE = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/completions"


@pytest.fixture(scope="module")
def vllm(untied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVllm]:
    with running_vllm(untied, tmp_path_factory.mktemp("server")) as running:
        yield running


def test_answers_equal_those_of_plain_peft(vllm: RunningVllm, untied: Path, adapters: dict[str, Path]) -> None:
    wanted = [(text, name) for text in TEXTS for name in (None, *ANSWERED)]
    sent = [vllm.submit(text, adapters[name] if name else None) for text, name in wanted]
    for (_, name), answers in zip(wanted, sent, strict=True):
        found = pieces(answers)
        tokens, scores = plain(untied, adapters.get(name or ""), answers.prompt, [2], 12)
        assert text_of(found) == vllm.prompts._own.decode(tokens, skip_special_tokens=True), name
        torch.testing.assert_close(torch.tensor(logprobs_of(found)), scores, rtol=1e-4, atol=1e-4)


def test_prompt_is_sent_as_our_own_tokens(vllm: RunningVllm) -> None:
    vllm.answer("Be brief, Ada.", max_tokens=2)
    sent = vllm.requests(COMPLETE)[-1]
    assert sent["prompt"] == text_prompt(vllm.prompts._own, "Be brief, Ada.")
    assert (sent["ignore_eos"], sent["stop_token_ids"]) == (True, [2])


@pytest.mark.parametrize(
    ("kind", "reason"), [("dora", "DoRA"), ("with a head", "lm_head"), ("of a high rank", "max_lora_rank 64")]
)
def test_adapter_that_vllm_lacks_is_refused_by_name(
    vllm: RunningVllm,
    untied: Path,
    adapters: dict[str, Path],
    make_adapter: Callable[..., Path],
    kind: str,
    reason: str,
) -> None:
    adapter = adapters.get(kind) or make_adapter(untied, 9, r=65, target_modules=["q_proj"])
    (refusal,) = lines(vllm.submit(TEXTS[0], adapter))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.param) == (FailureCode.MODEL_UNSUPPORTED, "model")
    assert reason in refusal.message
    assert 'format "merged"' in refusal.message
    assert len(list((vllm.folder / "adapters").glob("*"))) == len(vllm.engine._adapters._loaded)
    assert text_of(vllm.answer(TEXTS[0]))


def test_folder_that_is_no_adapter_is_refused(vllm: RunningVllm, tmp_path: Path) -> None:
    (refusal,) = lines(vllm.submit(TEXTS[0], tmp_path))
    assert isinstance(refusal, Refusal)
    assert refusal.param == "model"


def test_seed_repeats_each_of_several_answers(vllm: RunningVllm, adapters: dict[str, Path]) -> None:
    first, again = (vllm.answer(TEXTS[0], adapters["plain"], n=3, temperature=1.5, seed=7) for _ in range(2))
    several = [text_of(first, index) for index in range(3)]
    assert [text_of(again, index) for index in range(3)] == several
    assert len(set(several)) == 3


@pytest.mark.parametrize("sampling", [{"temperature": 1.0, "top_p": 0.0}, {"temperature": 5e-324}])
def test_least_chance_is_the_most_likely(vllm: RunningVllm, sampling: dict[str, Any]) -> None:
    assert text_of(vllm.answer(TEXTS[1], **sampling)) == text_of(vllm.answer(TEXTS[1]))


def test_stop_string_ends_vllms_answer_too(vllm: RunningVllm) -> None:
    whole = text_of(vllm.answer(TEXTS[0], max_tokens=40))
    stop = whole[4:6]
    found = vllm.answer(TEXTS[0], max_tokens=400, stop=["never", stop])
    assert (text_of(found), found[-1].finish) == (whole[: whole.index(stop)], "stop")
    until(lambda: {"aborted": "base"} in vllm.requests())


def test_most_likely_tokens_come_with_each(vllm: RunningVllm) -> None:
    found = vllm.answer(TEXTS[0], max_tokens=3, logprobs=2, temperature=1.0, seed=1)
    assert found[-1].finish == "length"
    scored = [token for piece in found for token in piece.tokens]
    assert len(scored) == 3
    for token in scored:
        assert len(token.top) == 2
        assert token.top[0][1] >= max(token.top[1][1], token.logprob)


def test_calls_are_found_in_vllms_tokens(untied: Path, tmp_path: Path) -> None:
    says = 'Wait. <tool_call>\n{"name": "look", "arguments": {"at": 3}}\n</tool_call>'
    with running_vllm(untied, tmp_path, "--says", says) as vllm:
        answers = dataclasses.replace(vllm.prompts.read(request("Look!", max_tokens=100)), finds_calls=True)
        assert vllm.engine.submit(answers) is None
        found = pieces(answers)
    assert text_of(found).strip() == "Wait."
    assert found[-1].calls == [Call(name="look", arguments={"at": 3})]
    assert found[-1].finish == "tool_calls"


def test_adapters_make_room_and_come_back_under_new_names(
    untied: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    with running_vllm(untied, tmp_path, adapters=2) as vllm:
        chosen = [adapters[name] for name in ANSWERED]
        first = [text_of(vllm.answer(TEXTS[0], adapter)) for adapter in chosen]
        assert len(set(first)) == 3
        sent = [vllm.submit(TEXTS[0], adapter) for adapter in chosen * 3]
        assert [text_of(pieces(answers)) for answers in sent] == first * 3
        loaded = [(each["lora_name"], each["lora_path"]) for each in vllm.requests(LOAD)]
        assert len(loaded) > 3
        assert len({name for name, _ in loaded}) == len({path for _, path in loaded}) == len(loaded)
        assert len(loaded) - len(vllm.requests(UNLOAD)) == 2
        assert len(list((tmp_path / "adapters").iterdir())) == 2


def test_reader_that_leaves_ends_vllms_answer(vllm: RunningVllm, adapters: dict[str, Path]) -> None:
    leaver = vllm.submit(TEXTS[2], adapters["plain"], max_tokens=400, stop=["never"], temperature=2.0)
    leaver.lines.get(timeout=60)
    leaver.cancelled = True
    until(lambda: vllm.engine._under_way == 0)
    until(lambda: any(each.get("aborted", "base") != "base" for each in vllm.requests()))


@pytest.mark.parametrize("name", [None, *ANSWERED])
def test_loss_is_that_of_all_logits(
    vllm: RunningVllm, untied: Path, adapters: dict[str, Path], name: str | None
) -> None:
    ids = torch.randint(3, 300, (512,), generator=torch.Generator().manual_seed(0)).tolist()  # the whole context
    document = Document(ids, [index > 10 and index % 9 > 0 for index in range(512)])
    adapter = adapters[name] if name else None
    scoring = Scoring(document, adapter)
    vllm.engine.score(scoring)
    assert scoring.result.get(timeout=60) == pytest.approx(plain_loss(untied, adapter, document), rel=1e-5)


def test_document_beyond_the_context_is_refused(vllm: RunningVllm) -> None:
    scoring = Scoring(Document([5] * 513, [True] * 513), None)
    vllm.engine.score(scoring)
    refusal = scoring.result.get(timeout=60)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "context_length_exceeded"


def test_evaluation_scores_and_answers(vllm: RunningVllm, adapters: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Say {word}.", "completion": f"{word}!"} for word in ("hello", "goodbye")]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    wanted: EvaluationRequest = evaluation_request(file, adapters["plain"])
    *examples, _ = evaluate(vllm.prompts, vllm.engine, wanted)
    found = [each for each in examples if isinstance(each, EvaluatedExample)]
    assert len(found) == 2
    assert all(each.base.loss != each.adapter.loss for each in found)
    assert all(math.isfinite(each.base.loss) for each in found)


@pytest.mark.parametrize(
    ("fault", "begun"),
    [
        ("dies", True),
        pytest.param("fails", True, marks=pytest.mark.exhaustive),
        pytest.param("refuses", False, marks=pytest.mark.exhaustive),
    ],
)
def test_answer_that_vllm_breaks_off_ends_with_an_error(untied: Path, tmp_path: Path, fault: str, begun: bool) -> None:
    with running_vllm(untied, tmp_path, "--fault", fault) as vllm:
        *before, last = lines(vllm.submit(TEXTS[0], n=2))
        assert isinstance(last, Refusal)
        assert last.retry == begun
        assert bool(before and isinstance(before[0], PromptTokens)) == begun
        if fault == "dies":
            until(lambda: bool(vllm.ended))
            assert isinstance(vllm.ended[0], VllmEnded)
            assert vllm.engine.submit(vllm.prompts.read(request(TEXTS[0]))) is not None


def test_too_many_requests_are_refused(untied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.vllm.engine.MOST_WAITING", 1)
    with running_vllm(untied, tmp_path, batch=1) as vllm:
        sent = [vllm.submit(text, max_tokens=100, stop=["never"]) for text in TEXTS[:2]]
        full = vllm.engine.submit(vllm.prompts.read(request(TEXTS[2])))
        assert full is not None
        assert full.code == "overloaded"
        vllm.engine.stop()
        stopping = vllm.engine.submit(vllm.prompts.read(request(TEXTS[2])))
        assert stopping is not None
        assert stopping.code == "unavailable"
        assert all(isinstance(pieces(answers)[-1], Piece) for answers in sent)


@pytest.mark.exhaustive
def test_idle_engine_ends(untied: Path, tmp_path: Path) -> None:
    with running_vllm(untied, tmp_path, idle_seconds=0.5) as vllm:
        until(lambda: vllm.engine._events.is_closed())
        assert vllm.ended == []


def test_key_and_socket_are_out_of_others_reach(vllm: RunningVllm) -> None:
    process = psutil.Process(vllm.engine._process.pid)
    key = process.environ()["VLLM_API_KEY"]
    assert len(key) > 30
    assert not any(key in word for word in process.cmdline())
    assert not process.net_connections()
    assert (vllm.folder / "vllm.sock").is_socket()
    assert process.environ()["VLLM_NO_USAGE_STATS"] == "1"


def test_operators_options_come_before_ours(untied: Path, tmp_path: Path) -> None:
    with running_vllm(untied, tmp_path, "--max-lora-rank", "8", "--max-num-seqs", "3") as vllm:
        given = vllm.requests()[0]["arguments"]
    assert given.index("8") > given.index("64")
    assert given[-1 - given[::-1].index("--max-num-seqs") + 1] == "16"


@pytest.fixture
def start(untied: Path, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts the server as a worker does, in tmp_path."""
    begun = []

    def start(*options: str) -> "subprocess.Popen[bytes]":
        (tmp_path / SPEC).write_text(server_spec(untied, *options).model_dump_json())
        with RunDir(tmp_path).log.open("wb") as output:
            command = [sys.executable, "-m", "inference", str(tmp_path)]
            environment = os.environ | {"PYTHONPATH": os.getcwd()}
            process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output, env=environment)
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("unsupported", FailureCode.MODEL_UNSUPPORTED, "are not supported for now"),
        pytest.param("memory", FailureCode.OUT_OF_MEMORY, "CUDA out of memory", marks=pytest.mark.exhaustive),
        pytest.param("none", FailureCode.WORKER_FAILED, "ended with 2", marks=pytest.mark.exhaustive),
    ],
)
def test_failed_start_says_why(
    start: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path, fault: str, code: FailureCode, words: str
) -> None:
    process = start("--fault", fault) if fault != "none" else start("--no-such-option")
    assert process.wait(100) == 1
    failure = Failure.model_validate_json(RunDir(tmp_path).error.read_bytes())
    assert failure.code is code
    assert words in failure.message


@pytest.mark.exhaustive
def test_slow_start_is_stopped_with_its_process(
    start: Callable[..., "subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    process = start("--fault", "slow")
    until(lambda: (tmp_path / "requests.jsonl").exists(), 100)
    (child,) = psutil.Process(process.pid).children()
    process.terminate()
    assert process.wait(20) == 0
    assert not child.is_running()
    assert not (tmp_path / READY).exists()
