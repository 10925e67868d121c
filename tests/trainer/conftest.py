"""A tiny model with a real tokenizer and a ChatML template: random weights, trained on nothing, quick."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    xLSTMConfig,
    xLSTMForCausalLM,
)

from contract.events import Event, parse_event
from contract.failure import Failure

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ROWS = [
    {"messages": [{"role": "user", "content": f"What is {n} plus {n}?"}, {"role": "assistant", "content": f"{2 * n}."}]}
    for n in range(8)
] + [
    {
        "messages": [
            {"role": "system", "content": f"Be brief, {name}."},
            {"role": "user", "content": "Say hello, please."},
            {"role": "assistant", "content": "Hello there!"},
            {"role": "user", "content": "And now goodbye."},
            {"role": "assistant", "content": "Goodbye, and see you soon."},
        ]
    }
    for name in ("Ada", "Ben", "Cleo", "Dov")
]
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}
MODELS: dict[str, Callable[..., Any]] = {
    "gemma": lambda **sizes: GemmaForCausalLM(GemmaConfig(**sizes)),
    "llama": lambda **sizes: LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True)),
    "llama of 4 layers": lambda **sizes: LlamaForCausalLM(LlamaConfig(**(sizes | {"num_hidden_layers": 4}))),
    "mistral": lambda **sizes: MistralForCausalLM(MistralConfig(**sizes, sliding_window=None)),
    "qwen2": lambda **sizes: Qwen2ForCausalLM(Qwen2Config(**sizes)),
    "qwen3": lambda **sizes: Qwen3ForCausalLM(Qwen3Config(**sizes)),
    "llama with dropout": lambda **sizes: LlamaForCausalLM(LlamaConfig(**sizes, attention_dropout=0.5)),
    "gpt2 with dropout": lambda vocab_size, **sizes: GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab_size, n_embd=64, n_layer=2, n_head=4, n_positions=512, resid_pdrop=0.5)
    ),
    "gpt2 of 64 positions": lambda vocab_size, **sizes: GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab_size, n_embd=64, n_layer=2, n_head=4, n_positions=64)
    ),
    "xlstm": lambda vocab_size, **sizes: xLSTMForCausalLM(
        xLSTMConfig(vocab_size=vocab_size, hidden_size=64, num_hidden_layers=2, num_heads=4)
    ),
    "sliding": lambda **sizes: MistralForCausalLM(MistralConfig(**sizes, sliding_window=8)),
}


def furnish(home: Path, model: Path) -> None:
    """With what a recipe of a service's test names: the model tiny, and the dataset rows.jsonl."""
    (home / "datasets").mkdir()
    (home / "datasets" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    shutil.copytree(model, home / "models" / "tiny")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """What is not about a GPU runs as where there is none, with the processes that it starts: two ranks want two."""
    with pytest.MonkeyPatch.context() as patch:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("gpu") is None:
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
            patch.setattr(torch.cuda, "is_available", lambda: False)
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of tokenised datasets, of these tests and of the trainers that they start."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "finetuned" / "tokens"


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and a few merges. Padding is the end-of-turn token, as in SmolLM2."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([json.dumps(row) for row in ROWS], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token=special[0],
        bos_token=special[1],
        eos_token=special[2],
        pad_token=special[2],
        chat_template=CHATML,
    )


@pytest.fixture(scope="session")
def make_model(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random model of a kind of MODELS."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            torch.manual_seed(0)
            folder = tmp_path_factory.mktemp(f"model-{kind}")
            model = MODELS[kind](**SIZES, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=2)
            # Random biases, norms and head, so that nothing is right by being zero or one.
            for parameter in model.parameters():
                parameter.data += 0.05 * torch.randn_like(parameter)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            made[kind] = folder
        return made[kind]

    return make


@pytest.fixture(scope="session")
def model(make_model: Callable[[str], Path]) -> Path:
    return make_model("llama")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def long_dataset(tmp_path: Path) -> Path:
    """Takes a minute to read."""
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) * 15_000)
    return path


@pytest.fixture
def recipe(model: Path, dataset: Path) -> dict[str, Any]:
    """A recipe of two epochs of three steps in fp32; tests change what they are about."""
    return {
        "model": str(model),
        "dataset": str(dataset),
        "adapter": {"r": 4, "alpha": 8},
        "batch": {"micro_batch_size": 4},
        "optimizer": {"learning_rate": 1e-2},
        "schedule": {"epochs": 2, "type": "constant", "warmup_steps": 0},
        "precision": "fp32",
    }


@dataclass(frozen=True)
class Outcome:
    folder: Path
    exit_code: int
    output: str

    @property
    def events(self) -> list[Event]:
        return [parse_event(line) for line in (self.folder / "events.jsonl").read_bytes().splitlines()]

    @property
    def failure(self) -> Failure:
        return Failure.model_validate_json((self.folder / "error.json").read_bytes())


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What they return. A trainer's start leaves cores idle, which another one's may use."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def command(run_dir: Path, ranks: int = 1, resume: Path | None = None) -> list[str]:
    words = ["-m", "trainer", str(run_dir), *(["--resume", str(resume)] if resume else [])]
    if ranks == 1:
        return [sys.executable, *words]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *words]


@pytest.fixture
def run_trainer(tmp_path: Path) -> Callable[..., Outcome]:
    """Runs the real trainer, in processes of its own."""

    def run(
        recipe: dict[str, Any], ranks: int = 1, name: str = "run", timeout: float = 120, resume: Path | None = None
    ) -> Outcome:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "recipe.json").write_text(json.dumps(recipe))
        result = subprocess.run(
            command(folder, ranks, resume),
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        )
        return Outcome(folder, result.returncode, result.stdout + result.stderr)

    return run
