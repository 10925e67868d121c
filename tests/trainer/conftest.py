"""A tiny model with a real tokenizer and a ChatML template: random weights, trained on nothing, quick."""

import json
import os
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
)

from tests.support import service
from tests.support.database import empty_database
from tests.support.service import Service
from tests.trainer.families import FAMILIES
from tests.trainer.tiny_models import CHATML, MODELS, ROWS, SIZES, add_model_and_rows
from tests.trainer.trainer_process import Outcome, command
from trainer.environment import prepare_process

prepare_process()


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


@pytest.fixture(scope="module")
def serve_tiny(
    make_model: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    engine: sa.Engine,
    database_url: str,
    broker_url: str,
) -> Callable[..., AbstractContextManager[Service]]:
    """Runs a service on an empty database and a home of its own, with the model tiny and the dataset rows.jsonl."""

    def serve(**options: Any) -> AbstractContextManager[Service]:
        empty_database(engine)
        home = tmp_path_factory.mktemp("home")
        add_model_and_rows(home, make_model("llama"))
        return service.running(home, database_url, broker_url, **options)

    return serve


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


@pytest.fixture(scope="session")
def make_family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random model: its biases, norms and head too, so that nothing is right by being zero or one."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(FAMILIES[family][0]())
            for parameter in model.parameters():
                parameter.data += 0.05 * torch.randn_like(parameter)
            made[family] = tmp_path_factory.mktemp(family)
            model.save_pretrained(made[family])
        return made[family]

    return make
