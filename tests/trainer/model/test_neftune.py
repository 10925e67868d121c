import math
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.recipe import Recipe
from dataset.document import Document
from trainer.data.packing import pack
from trainer.model.base_model import load_model
from trainer.model.neftune import noisy_embeddings
from trainer.model.trained_model import TrainedModel

ALPHA = 5.0
LENGTHS = [3, 60, 300]
DOCUMENTS = [Document(list(range(3, 3 + n + 1)), [False] + [True] * n) for n in LENGTHS]


@pytest.fixture(params=["packed", "one by one"])
def module(request: pytest.FixtureRequest, model: Path, recipe: dict[str, Any]) -> TrainedModel:
    recipe = recipe | {"model": str(model)}
    loaded = load_model(Recipe.model_validate(recipe), torch.float32, torch.device("cpu"))
    if request.param == "one by one":
        loaded.take_one_by_one("for the test")
    return TrainedModel(loaded.model, loaded.path, neftune_alpha=ALPHA).train()


def embeddings_of(module: TrainedModel) -> list[torch.Tensor]:
    """What the layers are given in a forward pass over DOCUMENTS, by document."""
    seen = []
    first_layer = module.model.get_base_model().base_model.layers[0]
    hook = first_layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].detach().clone()))
    module(pack(DOCUMENTS))
    hook.remove()
    return list(torch.cat(seen).split(LENGTHS))


def noise_of(module: TrainedModel) -> list[torch.Tensor]:
    noisy = embeddings_of(module)
    table = module.model.get_base_model().get_input_embeddings().weight
    return [given - table[document.input_ids[:-1]] for given, document in zip(noisy, DOCUMENTS, strict=True)]


def test_noise_is_bounded_by_each_document_length(module: TrainedModel) -> None:
    torch.manual_seed(0)
    for length, noise in zip(LENGTHS, noise_of(module), strict=True):
        bound = ALPHA / math.sqrt(length * 64)
        assert noise.abs().max() <= bound * 1.0001
        # A uniform distribution's standard deviation; so many numbers have it to within a tenth.
        assert noise.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
        assert abs(noise.mean().item()) < 0.1 * bound


def test_shared_prompt_counts_for_the_length() -> None:
    embeddings = torch.nn.Embedding(2, 64)
    torch.manual_seed(0)
    with noisy_embeddings(embeddings, ALPHA, [61, 2], shared=[0, 60]):
        noise = embeddings(torch.zeros(1, 63, dtype=torch.long))[0] - embeddings.weight[0]
    for part, length in ((noise[:61], 61), (noise[61:], 62)):
        bound = ALPHA / math.sqrt(length * 64)
        assert 0.9 * bound < part.abs().max() <= bound * 1.0001


def test_noise_repeats_by_seed_and_differs_by_pass(module: TrainedModel) -> None:
    torch.manual_seed(0)
    first, second = noise_of(module)[2], noise_of(module)[2]
    torch.manual_seed(0)
    assert torch.equal(noise_of(module)[2], first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("alpha", [None, ALPHA])
def test_evaluation_has_no_noise(module: TrainedModel, alpha: float | None) -> None:
    module.neftune_alpha = alpha
    module.train(alpha is None)
    random = torch.get_rng_state()
    assert not any(noise.any() for noise in noise_of(module))
    assert torch.equal(torch.get_rng_state(), random)


def test_gradients_are_those_of_the_noisy_loss(module: TrainedModel) -> None:
    weight = next(parameter for name, parameter in module.named_parameters() if "lora_B" in name)

    def loss() -> torch.Tensor:
        torch.manual_seed(0)
        return module(pack(DOCUMENTS[:2]))[0]

    (gradient,) = torch.autograd.grad(loss(), weight)
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        weight += step
        above = loss()
        weight -= 2 * step
        below = loss()
    assert (above - below).item() / 2e-2 == pytest.approx(gradient.norm().item(), rel=0.02)


def test_pass_leaves_no_hook_behind(module: TrainedModel) -> None:
    module(pack(DOCUMENTS))[0].backward()
    assert not module.model.get_base_model().get_input_embeddings()._forward_hooks


def test_recipes_alpha_reaches_the_model(recipe: dict[str, Any]) -> None:
    noisy, quiet = (
        load_model(Recipe.model_validate(recipe | {"neftune_alpha": alpha}), torch.float32, torch.device("cpu"))
        for alpha in (ALPHA, None)
    )
    batch = pack(DOCUMENTS)
    assert noisy.train()(batch)[0] != quiet.train()(batch)[0]
    assert noisy.eval()(batch)[0] == quiet.eval()(batch)[0]
