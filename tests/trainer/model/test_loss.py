from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from contract.recipe import Recipe
from dataset.document import Document
from tests.trainer.adapters import documents_of, load_with_random_adapter
from trainer.data.examples import load_data
from trainer.data.packing import pack
from trainer.model.attention import DocumentBounds, attend_documents
from trainer.model.head import head_losses

UNTIED = ["mistral", "qwen2", "qwen3", "sliding"]
KINDS = ["bloom", "llama", *UNTIED]


def documents(recipe: dict[str, Any]) -> list[Document]:
    cache = Path(recipe["dataset"]).parent / "cache"
    return documents_of(load_data(Recipe.model_validate(recipe), cache).train[5:10])


def reference_loss(model: Any, document: Document) -> torch.Tensor:
    """Transformers' own loss of one document, as a sum."""
    ids = torch.tensor([document.input_ids])
    labels = torch.where(torch.tensor([document.supervised]), ids, -100)
    return model(input_ids=ids, labels=labels, use_cache=False).loss * document.targets


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("kind", "targets"),
    # The heads of llama here and of bloom are tied to their embeddings, and have no weights of their own to adapt.
    [(kind, "all-linear") for kind in KINDS] + [(kind, ["q_proj", "lm_head"]) for kind in UNTIED],
)
def test_packed_row_has_the_loss_of_its_documents(
    kind: str, targets: str | list[str], make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    module, parts = load_with_random_adapter(recipe, make_model(kind), targets), documents(recipe)
    loss = module(pack(parts))[0]
    loss.backward()
    ours = gradients(module)

    module.zero_grad()
    reference = load_with_random_adapter(recipe, make_model(kind), targets).model
    if kind != "bloom":
        reference.get_base_model().set_attn_implementation("sdpa")
    expected = torch.stack([reference_loss(reference, part) for part in parts]).sum()
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    theirs = {f"model.{name}": gradient for name, gradient in gradients(reference).items()}
    assert ours.keys() == theirs.keys()
    assert len(ours) > 0
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-5)


def test_packed_and_unpacked_ways_are_both_used(make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    assert load_with_random_adapter(recipe, make_model("llama")).packed
    assert load_with_random_adapter(recipe, make_model("sliding")).packed
    assert not load_with_random_adapter(recipe, make_model("bloom")).packed


def test_model_with_all_logits_has_equal_loss(make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    module, parts = load_with_random_adapter(recipe, make_model("xlstm")).train(), documents(recipe)
    assert module(pack(parts))[0].item() == pytest.approx(
        sum(reference_loss(module.model, part).item() for part in parts), rel=1e-5
    )


@pytest.mark.parametrize("kind", ["llama", "sliding", "bloom"])
def test_bf16_base_has_nearly_equal_gradients(
    kind: str, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    exact = load_with_random_adapter(recipe, make_model(kind))
    rounded = load_with_random_adapter(recipe, make_model(kind), dtype=torch.bfloat16)
    losses = [module(pack(documents(recipe)))[0] for module in (exact, rounded)]
    for loss in losses:
        loss.backward()
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.01)
    expected = gradients(exact)
    for name, gradient in gradients(rounded).items():
        assert gradient.dtype == torch.float32
        assert (gradient - expected[name]).norm() < 0.1 * expected[name].norm(), name


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_heads_own_gradient_is_that_of_autograd(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.model.head.CHUNK_BYTES", {"cpu": 4 * 500 * 64})  # 64 rows at once
    torch.manual_seed(0)
    head = torch.nn.Linear(32, 500, bias=False).requires_grad_(False)
    hidden = torch.randn(rows, 32, requires_grad=True)
    targets = torch.randint(500, (rows,))
    (expected,) = torch.autograd.grad(F.cross_entropy(head(hidden), targets, reduction="sum") * 0.3, hidden)

    loss, _ = head_losses(hidden, head, targets)
    (gradient,) = torch.autograd.grad(loss * 0.3, hidden)
    assert loss.item() == pytest.approx(F.cross_entropy(head(hidden), targets, reduction="sum").item(), rel=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


def test_logits_are_made_for_the_learned_positions_alone(
    model: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []

    def reported(hidden: torch.Tensor, *others: Any) -> tuple[torch.Tensor, torch.Tensor]:
        rows.append(len(hidden))
        return head_losses(hidden, *others)

    module, parts = load_with_random_adapter(recipe, model), documents(recipe)
    # Not before: loading checks how rows go through a model of this kind.
    monkeypatch.setattr("trainer.model.trained_model.head_losses", reported)
    module(pack(parts))
    assert rows == [sum(part.targets for part in parts)]
    assert rows[0] < sum(part.length for part in parts) / 2


@pytest.mark.parametrize("batch", [[], [Document([3, 4, 5], [False] * 3)]], ids=["no document", "no target"])
@pytest.mark.parametrize("kind", ["llama", "sliding", "bloom", "gpt2 with dropout"])
def test_batch_without_targets_has_zero_gradients(
    kind: str, batch: list[Document], make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    module = load_with_random_adapter(recipe, make_model(kind))
    loss = module(pack(batch))[0]
    loss.backward()
    assert loss.item() == 0
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in trainable)


@pytest.mark.parametrize("scale", [1, 2.0**18])
def test_fp16_survives_a_too_large_loss_scale(scale: float) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(32, 500, bias=False).requires_grad_(False)
    targets = torch.randint(500, (20,))
    hidden = head.weight[targets] * 80  # all but learned
    exact, rounded = hidden.clone().requires_grad_(), hidden.half().requires_grad_()
    (expected,) = torch.autograd.grad(head_losses(exact, head, targets)[0], exact)
    assert expected.abs().max() < 1e-3

    with torch.autocast("cpu", dtype=torch.float16):
        loss, _ = head_losses(rounded, head.half(), targets)
    (gradient,) = torch.autograd.grad(loss * scale, rounded)
    assert (gradient.float() / scale - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_leaves_cpu_attention_in_fp32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 12, 8).to(dtype) for _ in range(3))
    two = DocumentBounds([5, 7], torch.tensor([0, 5, 12], dtype=torch.int32))
    with torch.autocast("cpu", dtype=dtype):
        inside, _ = attend_documents(torch.nn.Identity(), query, key, value, None, documents=two)
    exact, _ = attend_documents(torch.nn.Identity(), query.float(), key.float(), value.float(), None, documents=two)
    assert torch.equal(inside, exact.to(dtype))
