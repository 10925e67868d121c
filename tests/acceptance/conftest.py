"""The whole service with a trainer that trains nothing, so that a job takes a second."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.session import Sessions
from tests import service
from tests.service import FAKE_TRAINER, Service

ROW = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}


def write_model(folder: Path) -> None:
    """A folder with the headers of a model's weights and no weights: all that the API looks at."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    names = ["model.embed_tokens", "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj", "lm_head"]
    tensors = {f"{name}.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]} for name in names}
    header = json.dumps(tensors).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_model(tmp_path / "models" / "tiny")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "rows.jsonl").write_text("".join(json.dumps(ROW) + "\n" for _ in range(3)))
    return tmp_path


@pytest.fixture
def live(home: Path, sessions: Sessions, database_url: str, broker_url: str) -> Iterator[Service]:
    settings = {"FINETUNED_TRAINER": f"{sys.executable} {FAKE_TRAINER}", "FINETUNED_LEASE": "PT3S"}
    with service.running(home, database_url, broker_url, **settings) as running:
        yield running
