"""Pairs through models: packed, with shared prompts, and one document at a time."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset.document import Document
from tests.trainer.adapters import load_with_random_adapter
from tests.trainer.families import VOCABULARY
from trainer.data.items import Item, Pair, Rating
from trainer.data.packing import pack
from trainer.model.trained_model import TrainedModel

METHODS = ["dpo", "orpo", "simpo"]
Found = tuple[list[float], dict[str, torch.Tensor]]
KINDS = ["gemma2", "llama", "mistral", "qwen3", "sliding"]


def random_pair(prompt: int, chosen: int, rejected: int, reference: tuple[float, float] = (-9.0, -12.0)) -> Pair:
    ids = torch.randint(3, VOCABULARY, (prompt + chosen + rejected,)).tolist()
    both = ids[: prompt + chosen], ids[:prompt] + ids[prompt + chosen :]
    one, other = (Document(each, [False] * prompt + [True] * (len(each) - prompt)) for each in both)
    return Pair(one, other, reference)


def some_pairs() -> list[Item]:
    torch.manual_seed(4)
    return [random_pair(*lengths) for lengths in ((20, 5, 9), (1, 7, 3), (9, 2, 2))]


def loss_and_gradients(
    module: TrainedModel, items: list[Item], share: bool
) -> tuple[list[float], dict[str, torch.Tensor]]:
    module.zero_grad()
    sums = module(pack(items, share_prompts=share))
    sums[0].backward()
    return sums.tolist(), {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_close(found: Found, expected: Found) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6, name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_shared_prompts_change_nothing(
    kind: str, method: str, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    module = load_with_random_adapter(recipe | {"method": method}, make_model(kind))
    assert module.shares_prompts, module.path
    pairs = some_pairs()
    shared, apart = (loss_and_gradients(module, pairs, share) for share in (True, False))
    module.take_one_by_one("it is compared with that")
    alone = loss_and_gradients(module, pairs, share=False)
    assert_close(apart, alone)
    assert_close(shared, alone)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=4),
    alike=st.integers(0, 12),
)
def test_any_pairs_may_share_what_they_begin_with(
    lengths: list[tuple[int, int, int]], alike: int, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    """Answers too may begin alike, or be the same."""
    module = load_with_random_adapter(recipe | {"method": "dpo"}, make_model("sliding"))
    torch.manual_seed(len(lengths))
    pairs: list[Item] = []
    for prompt, chosen, rejected in lengths:
        pair = random_pair(prompt, chosen, rejected)
        ids = pair.rejected.input_ids.copy()
        same = min(prompt + alike, len(ids), len(pair.chosen.input_ids))
        ids[:same] = pair.chosen.input_ids[:same]
        pairs.append(Pair(pair.chosen, Document(ids, pair.rejected.supervised), pair.reference))
    batch = pack(pairs, share_prompts=True)
    assert batch.input_ids.shape[1] <= sum(pair.length for pair in pairs)
    assert_close(loss_and_gradients(module, pairs, share=True), loss_and_gradients(module, pairs, share=False))


def test_prompt_is_in_the_row_once() -> None:
    torch.manual_seed(0)
    pair = random_pair(20, 5, 9)
    assert pack([pair]).lengths == [24, 28]
    shared = pack([pair], share_prompts=True)
    assert shared.lengths == [24, 8]
    assert shared.shared == [(0, 0), (0, 20)]
    assert shared.position_ids[0].tolist() == [*range(24), *range(20, 28)]
    assert torch.equal(shared.targets, pack([pair]).targets)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("loss", ["sigmoid", "sigmoid_norm"])
def test_first_loss_is_the_logarithm_of_two(
    loss: str, share: bool, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    """Also for an adapter that is trained further: it is its own reference."""
    module = load_with_random_adapter(recipe | {"method": {"type": "dpo", "loss": loss}}, make_model("llama")).eval()
    pairs = some_pairs()
    with torch.no_grad():
        before = module(pack(pairs, share), log_probabilities=True).view(-1, 2).tolist()
    known = [Pair(p.chosen, p.rejected, (a, b)) for p, (a, b) in zip(pairs, before, strict=True) if isinstance(p, Pair)]
    sums = module(pack(known, share))
    assert sums[0].item() / len(pairs) == pytest.approx(math.log(2), abs=1e-6)
    assert module.objective.score(sums.tolist(), len(pairs)).reward_margin == pytest.approx(0, abs=1e-5)


def test_gradients_are_those_of_plain_transformers(make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    module = load_with_random_adapter(recipe | {"method": "dpo"}, make_model("llama"))
    pairs = some_pairs()
    _, found = loss_and_gradients(module, pairs, share=True)
    module.zero_grad()
    module.take_one_by_one("transformers' own attention")
    total = torch.zeros(())
    for pair in pairs:
        assert isinstance(pair, Pair)
        ratios = []
        for document, reference in zip(pair.documents, pair.reference, strict=True):
            ids = torch.tensor([document.input_ids])
            log_probs = module.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            of_tokens = log_probs.gather(1, ids[0, 1:, None])[:, 0]
            ratios.append(of_tokens[torch.tensor(document.supervised[1:])].sum() - reference)
        total = total - torch.nn.functional.logsigmoid(0.1 * (ratios[0] - ratios[1]))
    total.backward()
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            assert (found[name] - parameter.grad).norm() <= 1e-5 * parameter.grad.norm(), name


@pytest.mark.parametrize("method", [*METHODS, "kto"])
@pytest.mark.parametrize("packed", [True, False])
def test_empty_batch_of_a_method_has_zero_gradients(
    method: str, packed: bool, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    module = load_with_random_adapter(recipe | {"method": method}, make_model("llama"))
    if not packed:
        module.take_one_by_one("to see that")
    sums = module(pack([]))
    sums[0].backward()
    assert sums.tolist() == [0.0] * module.objective.sums
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters() if p.requires_grad)


def test_untrained_model_is_on_no_side(make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    """Or a model would have to be better than the share of bad answers."""
    module = load_with_random_adapter(recipe | {"method": "kto"}, make_model("llama"))
    torch.manual_seed(1)
    documents = [random_pair(6, 4, 2).chosen for _ in range(3)]
    batch = pack([Rating(each, each, desirable=False) for each in documents])
    with torch.no_grad():
        before = module(batch, log_probabilities=True).tolist()
        ratings: list[Item] = [Rating(d, d, False, (value, 0.0)) for d, value in zip(documents, before, strict=True)]
        sums = module(pack(ratings)).tolist()
    assert module.objective.score(sums, 3).reward_accuracy == 0


def test_ratings_are_scored_by_their_sides(make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    module = load_with_random_adapter(recipe | {"method": "kto"}, make_model("llama"))
    torch.manual_seed(1)
    documents = [random_pair(6, 4, 2).chosen for _ in range(3)]
    with torch.no_grad():
        before = module(pack([Rating(each, each, True) for each in documents]), log_probabilities=True).tolist()
    # The first two are now likelier than before, by 3 and by 1, and the last one is less likely, by 2.
    moved = [3.0, 1.0, -2.0]
    ratings: list[Item] = [
        Rating(each, each, good, (value - change, 0.0))
        for each, good, value, change in zip(documents, (True, False, False), before, moved, strict=True)
    ]
    sums = module(pack(ratings, baseline=0.5)).tolist()
    score = module.objective.score(sums, 3)
    assert score.reward_accuracy == pytest.approx(2 / 3)
    assert score.chosen_reward == pytest.approx(0.3, abs=1e-4)
    assert score.rejected_reward == pytest.approx(-0.05, abs=1e-4)
    assert (score.chosen_tokens, score.rejected_tokens) == (4, 4)
    sigmoids = [1 / (1 + math.exp(-0.1 * distance)) for distance in (2.5, -0.5, 2.5)]
    assert sums[0] == pytest.approx(sum(1 - each for each in sigmoids), abs=1e-4)
