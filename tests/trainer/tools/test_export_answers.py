"""An export answers as the samples of its job did, and stops where the learned answers ended."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from contract.events import SampleEvent
from contract.recipe import Recipe
from tests.trainer.in_process_trainer import train_here
from tests.trainer.tiny_models import CHATML
from trainer.tools import answer
from trainer.tools.merge import merge

QUESTION = {"role": "user", "content": "Say hello."}


@pytest.fixture
def unaware(tokenizer: PreTrainedTokenizerFast, model: Path, tmp_path: Path) -> Path:
    """A base model whose end of text is not what ends a turn, and whose tokenizer.json alone marks what does."""
    base = AutoModelForCausalLM.from_pretrained(model)
    base.config.eos_token_id = base.generation_config.eos_token_id = 0
    base.save_pretrained(tmp_path / "unaware")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|endoftext|>", chat_template=CHATML
    ).save_pretrained(tmp_path / "unaware")
    return tmp_path / "unaware"


@pytest.mark.parametrize("template", [None, pytest.param("chatml", marks=pytest.mark.exhaustive)])
@pytest.mark.slow
def test_export_answers_as_the_samples_did_and_stops(
    recipe: dict[str, Any],
    unaware: Path,
    tmp_path: Path,
    cache: Path,
    template: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = {"messages": [QUESTION, {"role": "assistant", "content": "Hello there!"}]}
    Path(recipe["dataset"]).write_text(json.dumps(row))
    requested = recipe | {
        "model": str(unaware),
        "dataset": {"path": recipe["dataset"], "chat_template": template},
        "schedule": {"epochs": 40, "type": "constant", "warmup_steps": 0},
        "evaluation": {"dataset": recipe["dataset"], "every_steps": 100, "samples": 1, "sample_tokens": 20},
    }
    trained = train_here(requested, tmp_path / "run", cache)
    sample = [event for event in trained.events if isinstance(event, SampleEvent)][-1]
    assert sample.generated == "Hello there!"
    adapter = trained.folder / "adapter"
    merged = tmp_path / "merged"
    merge(Recipe.model_validate(requested | {"adapter": {"start_from": str(adapter)}}), merged)
    assert generate(merged) == sample.generated + "<|im_end|>"
    exported = AutoModelForCausalLM.from_pretrained(merged)
    assert exported.generation_config.eos_token_id == exported.config.eos_token_id == [0, 2]
    assert json.loads((adapter / "generation_config.json").read_text())["eos_token_id"] == [0, 2]

    command = ["trainer.tools.answer", str(unaware), "--adapter", str(adapter), QUESTION["content"]]
    monkeypatch.setattr("sys.argv", command)
    capsys.readouterr()  # what training has printed
    answer.main()
    assert json.loads(capsys.readouterr().out)["adapter"] == sample.generated


@torch.inference_mode()
def generate(folder: Path) -> str:
    """As anyone would."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [QUESTION], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**prompt, max_new_tokens=20, do_sample=False, pad_token_id=0)
    return str(tokenizer.decode(output[0, prompt["input_ids"].shape[1] :]))
