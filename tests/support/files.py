"""Files that recipes name, as small as will do."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

ROW = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


_BYTES = {"F32": 4, "BF16": 2, "F8_E4M3": 1, "U8": 1, "I8": 1, "I64": 8}


_TOKENS = 259
"""Of write_tokenizer."""


def write_model(folder: Path) -> None:
    """A folder with a tokenizer and the headers of a model's weights, which are zeros: all that the API looks at."""
    write_tokenizer(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    names = ["model.embed_tokens", "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj", "lm_head"]
    rows = {"model.embed_tokens": _TOKENS, "lm_head": _TOKENS}
    write_weights(folder / "model.safetensors", {f"{name}.weight": [rows.get(name, 2), 2] for name in names})


def write_weights(
    path: Path, shapes: Mapping[str, Sequence[int]], dtype: str = "F32", dtypes: Mapping[str, str] | None = None
) -> None:
    """A safetensors file of zeros, which take no room on the disk. `dtypes` are those of some tensors."""
    header, end = {}, 0
    for name, shape in shapes.items():
        own = (dtypes or {}).get(name, dtype)
        begin, end = end, end + math.prod(shape) * _BYTES[own]
        header[name] = {"dtype": own, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def write_dataset(path: Path, rows: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(ROW) + "\n" for _ in range(rows)))


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_tokenizer(folder: Path, template: str | None = CHATML) -> None:
    """Of bytes, without merges: a token is a byte, or one of the special ones."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator([], trainer)
    folder.mkdir(parents=True, exist_ok=True)
    raw.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)


def add_model_and_dataset(home: Path) -> None:
    """What RECIPE of tests/support/jobs.py names."""
    write_model(home / "models" / "tiny")
    write_dataset(home / "datasets" / "rows.jsonl")


def contents(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}
