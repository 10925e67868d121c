"""Pairs and rated answers of random words, and a small random model for them."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.trainer.models import SMALL_LLAMA, random_model

_WORDS = (
    "the a of and to in is was for on that with as it by at from his her an were are which this be had or "
    "has not but first one their after new who two time people year city world school state work house "
    "night water book"
)
WORDS = _WORDS.split()
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Nothing after the token that ends an answer: TRL learns it, and this trainer does not."""


@dataclass(frozen=True)
class Shape:
    """Words of a prompt and of an answer, of each pair in turn."""

    name: str
    prompts: Sequence[int]
    answers: Sequence[int]


def make_model(folder: Path, small: bool, layers: int) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<|im_start|>", "<|im_end|>"]
    vocabulary = [*special, *WORDS, *("user", "assistant", "\n")]
    raw = Tokenizer(models.WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", eos_token="<|im_end|>", additional_special_tokens=["<|im_start|>"]
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder.with_name("tokenizer"))
    sizes = SMALL_LLAMA | {"vocab_size": 32768, "eos_token_id": special.index("<|im_end|>"), "bos_token_id": None}
    sizes |= {"num_hidden_layers": layers}
    if small:
        sizes |= {"vocab_size": 128, "hidden_size": 96, "intermediate_size": 128}
    return random_model(folder, sizes, folder.with_name("tokenizer"))


def write_pairs(path: Path, shape: Shape, count: int) -> Path:
    return _write(path, list(_pairs(shape, count)))


def write_ratings(path: Path, shape: Shape, count: int) -> Path:
    """The answers of so many pairs, each rated."""
    return _write(
        path,
        [
            {"prompt": pair["prompt"], "completion": pair[name], "label": name == "chosen"}
            for pair in _pairs(shape, count)
            for name in ("chosen", "rejected")
        ],
    )


def _pairs(shape: Shape, count: int) -> Iterator[dict[str, Any]]:
    drawn = random.Random(1)

    def turn(role: str, words: int) -> list[dict[str, str]]:
        return [{"role": role, "content": " ".join(drawn.choices(WORDS, k=words))}]

    for number in range(count):
        prompt, answer = (lengths[number % len(lengths)] for lengths in (shape.prompts, shape.answers))
        yield {
            "prompt": turn("user", prompt),
            "chosen": turn("assistant", answer),
            "rejected": turn("assistant", answer + answer // 4),
        }


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
