"""What an evaluation reports of each example, beside the trainer's own evaluation and plain PEFT."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.evaluation import EvaluatedExample, EvaluationEnd, EvaluationRequest
from contract.events import EvaluationEvent
from contract.failure import InputError
from contract.inference import Alive
from contract.recipe import DatasetSource
from dataset.dataset_reader import file_sha256
from inference import alive
from inference.engine import MOST_WAITING
from inference.evaluation import evaluate
from inference.prompts import Refused
from tests.inference.running_loop import RunningLoop, evaluation_request, plain
from tests.support.waiting import until
from tests.trainer.tiny_models import ROWS
from tests.trainer.trainer_process import Outcome
from trainer.data.end_tokens import read_end_tokens

LONG = "and then one more, " * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Rows of several answers, one that max_length cuts, and one that it leaves nothing of."""
    cut = {"messages": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": LONG}]}
    lost = {"messages": [{"role": "user", "content": LONG}, {"role": "assistant", "content": "Yes."}]}
    path = tmp_path / "held-out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (*ROWS[-2:], cut, lost, *ROWS[:3])))
    return path


def evaluated(loop: RunningLoop, wanted: EvaluationRequest) -> tuple[list[EvaluatedExample], EvaluationEnd]:
    *examples, end = evaluate(loop.prompts, loop.loop, wanted)
    assert isinstance(end, EvaluationEnd)
    return [each for each in examples if isinstance(each, EvaluatedExample)], end


def test_losses_are_those_of_the_trainers_evaluation(
    recipe: dict[str, Any], model: Path, file: Path, run_trainer: Callable[..., Outcome]
) -> None:
    recipe |= {"evaluation": {"dataset": str(file)}, "batch": {"micro_batch_size": 4, "max_length": 120}}
    outcome = run_trainer(recipe | {"dataset": {"path": recipe["dataset"], "chat_template": "chatml"}})
    assert outcome.exit_code == 0, outcome.output
    first, *_, last = [event for event in outcome.events if isinstance(event, EvaluationEvent)]
    with RunningLoop(model) as loop:
        source = DatasetSource(path=str(file), sha256=file_sha256(file), chat_template="chatml")
        examples, end = evaluated(loop, evaluation_request(file, outcome.folder / "adapter", dataset=source))
    supervised = sum(each.supervised_tokens for each in examples)
    assert supervised == first.supervised_tokens
    assert (len(examples), end.dropped) == (6, 1)
    for reported, losses in (
        (first.eval_loss, [each.base.loss for each in examples]),
        (last.eval_loss, [each.adapter.loss for each in examples]),
    ):
        sums = (loss * each.supervised_tokens for loss, each in zip(losses, examples, strict=True))
        assert sum(sums) / supervised == pytest.approx(reported, abs=1e-5)
    assert last.eval_loss < first.eval_loss - 0.05


@pytest.mark.parametrize("kind", ["plain", "dora"])
def test_answers_are_those_of_plain_peft(
    loop: RunningLoop, untied: Path, adapters: dict[str, Path], file: Path, kind: str
) -> None:
    examples, _ = evaluated(loop, evaluation_request(file, adapters[kind]))
    first = examples[0]
    assert first.prompt.endswith("And now goodbye.\nassistant\n")
    assert first.reference == "Goodbye, and see you soon."
    ids = loop.prompts.document_tokens(adapters[kind], None).tokenizer([_text(ROWS[-2])], add_special_tokens=False)
    ends = [2, *read_end_tokens(adapters[kind])]
    for of_model, adapter in ((first.base, None), (first.adapter, adapters[kind])):
        said, _ = plain(untied, adapter, ids["input_ids"][0], ends, 8)
        assert of_model.answer == loop.prompts.document_tokens(adapters[kind], None).tokenizer.decode(
            said, skip_special_tokens=True
        )
    assert first.base.answer != first.adapter.answer


def _text(row: Any) -> str:
    """Up to its last answer."""
    turns = "".join(f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in row["messages"][:-1])
    return f"{turns}<|im_start|>assistant\n"


def test_evaluation_continues_after_what_is_known(loop: RunningLoop, adapters: dict[str, Path], file: Path) -> None:
    whole, end = evaluated(loop, evaluation_request(file, adapters["plain"]))
    assert [each.number for each in whole] == [1, 2, 3, 5, 6, 7]
    rest, same_end = evaluated(loop, evaluation_request(file, adapters["plain"], after=3, limit=6))
    assert [each.number for each in rest] == [5, 6]
    assert (rest, same_end) == (whole[3:5], end)


def test_evaluation_is_the_same_beside_answers(loop: RunningLoop, adapters: dict[str, Path], file: Path) -> None:
    wanted = evaluation_request(file, adapters["plain"], temperature=1.0, seed=3)
    alone, _ = evaluated(loop, wanted)
    under_way = loop.submit("Tell me more", adapters["of two modules"], n=8, max_tokens=200)
    beside, _ = evaluated(loop, wanted)
    under_way.cancelled = True
    for one, other in zip(alone, beside, strict=True):
        assert (one.base.answer, one.adapter.answer) == (other.base.answer, other.adapter.answer)
        assert one.adapter.loss == pytest.approx(other.adapter.loss, abs=1e-5)


def test_closed_evaluation_leaves_nothing_under_way(loop: RunningLoop, adapters: dict[str, Path], file: Path) -> None:
    lines = evaluate(loop.prompts, loop.loop, evaluation_request(file, adapters["plain"], max_new_tokens=300))
    next(lines)
    lines.close()
    until(lambda: not loop.loop._of and not loop.loop._waiting and not loop.loop._scorings)
    assert loop.answer("Hello", max_tokens=1, logprobs=None)


def test_changed_and_useless_files_are_refused(loop: RunningLoop, adapters: dict[str, Path], file: Path) -> None:
    wanted = evaluation_request(file, adapters["plain"])
    file.write_text(file.read_text() + "\n")
    with pytest.raises(InputError, match="has changed"):
        evaluated(loop, wanted)
    with pytest.raises(InputError, match="none of its 7 examples has an answer within 8 tokens"):
        evaluated(loop, evaluation_request(file, adapters["plain"], max_length=8))


def test_stopping_server_refuses_an_evaluation(loop: RunningLoop, adapters: dict[str, Path], file: Path) -> None:
    loop.loop.stop()
    with pytest.raises(Refused) as refused:
        evaluated(loop, evaluation_request(file, adapters["plain"]))
    assert refused.value.refusal.retry


def test_reader_is_kept_waiting_with_signs_of_life(
    loop: RunningLoop, adapters: dict[str, Path], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(file.read_text() * 100)
    monkeypatch.setattr(alive, "SECONDS_BETWEEN_LINES", 0.01)
    *others, end = evaluate(loop.prompts, loop.loop, evaluation_request(file, adapters["plain"], after=700, limit=700))
    assert end == EvaluationEnd(dropped=100)
    assert len(others) >= 2  # nothing but reading was left to do
    assert all(isinstance(each, Alive) for each in others)


def test_full_server_keeps_an_evaluation_alive(untied: Path, adapters: dict[str, Path], file: Path) -> None:
    idle = RunningLoop(untied)  # nothing takes what waits for it
    for _ in range(MOST_WAITING):
        idle.submit("Hello")
    lines = evaluate(idle.prompts, idle.loop, evaluation_request(file, adapters["plain"]))
    assert [next(lines), next(lines)] == [Alive(), Alive()]
    lines.close()
    assert all(each.cancelled for each in idle.loop._scorings)


def test_prompt_beyond_the_devices_memory_gets_no_answer(untied: Path, adapters: dict[str, Path], file: Path) -> None:
    with RunningLoop(untied, room=30) as loop:
        long, _, short = evaluated(loop, evaluation_request(file, adapters["plain"], limit=3))[0]
    for answer in (long.base, long.adapter):
        assert (answer.answer, answer.finish) == ("", "length")
        assert answer.loss > 0
    assert short.base.answer
