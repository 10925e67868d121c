"""Files that recipes name, as small as will do."""

import json
from pathlib import Path

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
