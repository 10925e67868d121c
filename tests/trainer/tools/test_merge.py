"""A merged model, as plain transformers reads it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from contract.failure import Failure
from tests.trainer.in_process_trainer import train_here
from tests.trainer.trainer_process import Outcome, merge

IDS = torch.tensor([[1, 40, 41, 42, 43, 44, 45, 2, 50, 51]])


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param(
            {"adapter": {"r": 4, "alpha": 8, "rslora": True, "dora": True, "modules_to_save": ["embed_tokens"]}},
            marks=pytest.mark.exhaustive,
        ),
        pytest.param({"base_bits": 4, "precision": "auto"}, marks=pytest.mark.exhaustive),
        pytest.param({"precision": "fp8"}, marks=pytest.mark.exhaustive),
    ],
    ids=["lora", "dora and embeddings", "four bits", "fp8"],
)
@pytest.mark.slow
def test_merged_model_has_the_adapted_logits(
    recipe: dict[str, Any], model: Path, tmp_path: Path, cache: Path, changes: dict[str, Any]
) -> None:
    requested = recipe | changes
    adapter = train_here(requested, tmp_path / "run", cache).folder / "adapter"
    done = merge(tmp_path / "export", requested, adapter)
    assert done.returncode == 0, done.stderr
    merged = tmp_path / "export" / "exported"
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    before = logits(base)
    wanted = logits(PeftModel.from_pretrained(base, adapter))
    found = logits(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert (found - before).abs().max() > 1e-2
    assert not list(merged.glob("adapter_*"))
    assert AutoTokenizer.from_pretrained(merged).chat_template == AutoTokenizer.from_pretrained(model).chat_template


@pytest.mark.exhaustive
@pytest.mark.slow
def test_trained_chat_template_is_the_merged_one(
    recipe: dict[str, Any], run_trainer: Callable[..., Outcome], tmp_path: Path
) -> None:
    requested = recipe | {"dataset": {"path": recipe["dataset"], "chat_template": "chatml"}}
    trained = run_trainer(requested)
    assert trained.exit_code == 0, trained.output
    assert merge(tmp_path / "export", requested, trained.folder / "adapter").returncode == 0
    merged, adapter = (
        AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "export/exported", trained.folder / "adapter")
    )
    assert (merged.chat_template, merged.eos_token) == (adapter.chat_template, adapter.eos_token)
    config = json.loads((tmp_path / "export/exported/generation_config.json").read_text())
    assert config["eos_token_id"] == merged.eos_token_id


@pytest.mark.exhaustive
@pytest.mark.slow
def test_impossible_merge_leaves_no_model(recipe: dict[str, Any], tmp_path: Path) -> None:
    requested = recipe | {"model": str(tmp_path / "none")}
    (tmp_path / "none").mkdir()
    assert merge(tmp_path / "export", requested, tmp_path).returncode == 1
    failure = Failure.model_validate_json((tmp_path / "export/error.json").read_bytes())
    assert (failure.code, failure.param) == ("model_unsupported", "model")
    assert not (tmp_path / "export/exported").exists()
