from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from transformers import GenerationConfig, PreTrainedTokenizerFast

from contract.recipe import Recipe
from dataset.document import Document
from tests.trainer.adapters import load_with_random_adapter
from tests.trainer.templates import as_read
from trainer.data.packing import pack
from trainer.model.base_model import checkpoint_activations, load_model
from trainer.model.trained_model import TrainedModel
from trainer.sample import Answer, Prompt, answer_prompts, sample_prompts
from trainer.stop import Stop

PROMPT = list(range(40, 60))


def test_prompt_asks_for_the_last_answer() -> None:
    conversation = Document(list(range(10)), [False] * 3 + [True] * 2 + [False] * 2 + [True] * 3)
    assert sample_prompts([conversation], 1) == [Prompt([0, 1, 2, 3, 4, 5, 6], [7, 8, 9])]


@pytest.mark.parametrize(("length", "begin"), [(2, 1), (3, 1), (9, 4)])
def test_plain_text_goes_on_from_its_middle(length: int, begin: int) -> None:
    ids = list(range(length))
    text = Document(ids, [False] + [True] * (length - 1))
    assert sample_prompts([text], 1) == [Prompt(ids[:begin], ids[begin:])]


def test_first_documents_are_asked() -> None:
    documents = [Document([n, 0, 1], [False, False, True]) for n in range(5)]
    assert [prompt.input_ids[0] for prompt in sample_prompts(documents, 3)] == [0, 1, 2]
    assert len(sample_prompts(documents, 64)) == 5


@pytest.mark.parametrize("kind", ["llama", "qwen3", "sliding", "bloom", "gpt2 with dropout"])
def test_samples_match_plain_transformers_and_peft(
    kind: str, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    module = load_with_random_adapter(recipe, make_model(kind)).train()
    reference = load_with_random_adapter(recipe, make_model(kind)).model.eval()
    if module.packed:
        reference.set_attn_implementation("sdpa")
    ids = torch.tensor([PROMPT])
    expected = reference.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, eos_token_id=2
    )
    random = torch.get_rng_state()

    assert module.generate(PROMPT, 24, [2], Stop()) == expected[0, len(PROMPT) :].tolist()
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("kind", ["llama", "sliding", "bloom"])
def test_sampling_leaves_the_training_unchanged(
    kind: str, make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    module = load_with_random_adapter(recipe, make_model(kind)).train()
    checkpoint_activations(module.model.get_base_model())
    batch = pack([Document(PROMPT, [False] * 10 + [True] * 10)] * 2)
    modes = {name: part.training for name, part in module.named_modules()}
    before, attention = module(batch)[0].item(), module.model.get_base_model().config._attn_implementation
    module.generate(PROMPT, 8, [2], Stop())
    assert module(batch)[0].item() == before
    assert {name: part.training for name, part in module.named_modules()} == modes
    assert module.model.get_base_model().config._attn_implementation == attention


def test_sample_ends_at_its_end_token(make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    module = load_with_random_adapter(recipe, make_model("llama"))
    free = module.generate(PROMPT, 12, [], Stop())
    assert len(free) == 12
    end = free[4]
    assert module.generate(PROMPT, 12, [end, 399], Stop()) == free[: free.index(end) + 1]
    positions = module.model.get_base_model().config.max_position_embeddings
    assert len(module.generate([5] * (positions - 3), 12, [], Stop())) == 3
    assert module.generate([5] * positions, 12, [], Stop()) == []


def test_stop_ends_a_generation(make_model: Callable[[str], Path], recipe: dict[str, Any]) -> None:
    module = load_with_random_adapter(recipe, make_model("llama"))
    stop = Stop()
    stop.requested = True
    assert len(module.generate(PROMPT, 400, [], stop)) == 1


@pytest.mark.exhaustive
@pytest.mark.slow
def test_sharded_ranks_sample_despite_a_stop(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.multiprocessing.spawn(generate_in_parts, (str(model), f"file://{tmp_path / 'store'}"), nprocs=2)


def generate_in_parts(rank: int, model: str, store: str) -> None:
    recipe = {"model": model, "dataset": "none"}
    expected = load_with_random_adapter(recipe, Path(model)).generate(PROMPT, 12, [], Stop())
    module = load_with_random_adapter(recipe, Path(model))
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    mesh = init_device_mesh("cpu", (2,))
    for layer in module.model.get_base_model().base_model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)
    register_fsdp_forward_method(module, "generate")
    assert module.generate(PROMPT, 12, [], Stop(), sharded=True) == expected
    stop = Stop()
    stop.requested = rank == 0
    assert len(module.generate(PROMPT, 12, [], stop, sharded=True)) == (1 if stop.requested else 12)
    torch.distributed.destroy_process_group()


def test_models_own_settings_for_sampling_change_nothing(
    make_model: Callable[[str], Path], recipe: dict[str, Any]
) -> None:
    module = load_with_random_adapter(recipe, make_model("llama"))
    expected = module.generate(PROMPT, 12, [2], Stop())
    module.model.get_base_model().generation_config = GenerationConfig(
        do_sample=True, temperature=0.6, top_p=0.9, max_length=30, eos_token_id=[1, 2]
    )
    assert module.generate(PROMPT, 12, [2], Stop()) == expected


@pytest.mark.exhaustive
def test_trained_model_samples_readable_answers(
    recipe: dict[str, Any], tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    module = load_model(Recipe.model_validate(recipe), torch.float32, torch.device("cpu")).train()
    document = chat_document(tokenizer)
    learn(module, document)
    (answer,) = answer_prompts(
        lambda prompt: module.generate(prompt, 20, [2], Stop()),
        as_read(tokenizer, tmp_path / "tokenizer"),
        sample_prompts([document], 1),
    )
    assert answer == Answer("user\nSay hello.\nassistant\n", "Hello there!", "Hello there!")


def chat_document(tokenizer: PreTrainedTokenizerFast) -> Document:
    question = [{"role": "user", "content": "Say hello."}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
    answer = tokenizer("Hello there!<|im_end|>")["input_ids"]
    return Document(prompt + answer, [False] * len(prompt) + [True] * len(answer))


def learn(module: TrainedModel, document: Document) -> None:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    for _ in range(40):
        module(pack([document]))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
