"""The loss of a document, beside the model's own logits of all of it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from contract.recipe import Recipe
from dataset.document import Document
from inference.adapters import Adapters
from inference.scoring import loss_of
from tests.inference.conftest import ADAPTERS
from tests.inference.running_loop import plain_loss
from tests.trainer.tiny_models import MODELS
from trainer.model import head
from trainer.model.base_model import load_base

ROWS = 7
"""Rows whose logits are computed at once."""


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch, untied: Path) -> Document:
    vocabulary = AutoModelForCausalLM.from_pretrained(untied).config.vocab_size
    monkeypatch.setitem(head.CHUNK_BYTES, "cpu", 4 * vocabulary * ROWS)
    ids = torch.randint(vocabulary, (50,), generator=torch.Generator().manual_seed(0)).tolist()
    return Document(input_ids=ids, supervised=[index > 10 and index % 9 > 0 for index in range(50)])


@torch.inference_mode()
def scored(folder: Path, adapter: Path | None, document: Document) -> tuple[float, int]:
    """The loss, and the most rows that the base model's head has seen at once."""
    base = load_base(
        Recipe.model_validate({"model": str(folder), "dataset": "-"}), torch.float32, torch.device("cpu")
    ).eval()
    adapters = Adapters(base, 1)
    name = adapters.load(adapter, ())
    assert name is not None
    seen = [0]
    base.get_output_embeddings().register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
    return loss_of(adapters, name, document), max(seen)


@pytest.mark.parametrize("kind", MODELS)
def test_loss_is_that_of_all_logits(make_model: Callable[[str], Path], document: Document, kind: str) -> None:
    folder = make_model(kind)
    loss, most_rows = scored(folder, None, document)
    assert loss == pytest.approx(plain_loss(folder, None, document), rel=1e-5)
    assert 0 < most_rows <= ROWS


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_loss_is_that_of_plain_peft(
    untied: Path, adapters: dict[str, Path], document: Document, kind: str
) -> None:
    loss, most_rows = scored(untied, adapters[kind], document)
    assert loss == pytest.approx(plain_loss(untied, adapters[kind], document), rel=1e-5)
    assert most_rows <= ROWS
