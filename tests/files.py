"""Files that recipes name, as small as will do."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

ROW = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


def write_model(folder: Path) -> None:
    """A folder with the headers of a model's weights and no weights: all that the API looks at."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    names = ["model.embed_tokens", "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj", "lm_head"]
    tensors = {f"{name}.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} for name in names}
    header = json.dumps(tensors).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))


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
