"""A job whose model cannot read the first rows of its dataset is refused when it is posted."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dataset.rendering.folder_tokenizer import read_tokenizer
from dataset.sandbox.child import DatasetSandbox, SandboxBusy
from tests.support.files import CHATML, write_dataset, write_tokenizer, write_weights

NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}" + CHATML
SYSTEM = {"messages": [{"role": role, "content": "a"} for role in ("system", "user", "assistant")]}
PLAIN = {"messages": [{"role": role, "content": "a"} for role in ("user", "assistant")]}


@pytest.fixture(autouse=True)
def bytes_model(home: Path) -> Path:
    """With a tokenizer of bytes: the ids 0 to 2 are special, and its vocabulary has 259."""
    return write_bytes_model(home / "models" / "bytes")


def write_bytes_model(folder: Path, embeddings: int = 259, template: str | None = CHATML) -> Path:
    write_tokenizer(folder, template)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    shapes = {"model.embed_tokens.weight": [embeddings, 2], "model.layers.0.self_attn.q_proj.weight": [2, 2]}
    write_weights(folder / "model.safetensors", shapes)
    return folder


def write_rows(home: Path, *rows: Any, name: str = "rows.jsonl") -> None:
    (home / "datasets" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def post_bytes(client: TestClient, route: str = "/jobs", **fields: Any) -> Any:
    return client.post(route, json={"model": "bytes", "dataset": "rows.jsonl", **fields})


def refusal(client: TestClient, **fields: Any) -> tuple[str, str, str]:
    """Of POST /jobs and of POST /plans: they agree."""
    answers = [post_bytes(client, route, **fields) for route in ("/jobs", "/plans")]
    assert [answer.status_code for answer in answers] == [422, 422], answers[0].text
    job, plan = (answer.json()["error"] for answer in answers)
    assert job["message"] == plan["message"]
    return job["code"], job["param"], job["message"]


def test_rows_that_the_template_rejects_are_refused(client: TestClient, home: Path) -> None:
    write_bytes_model(home / "models" / "strict", template=NO_SYSTEM)
    write_rows(home, PLAIN, SYSTEM)
    code, param, message = refusal(client, model="strict")
    assert (code, param) == ("dataset_invalid", "dataset")
    assert message == "row 2: the model's chat template refuses it: no system message"
    assert (
        post_bytes(client, model="strict", dataset={"path": "rows.jsonl", "chat_template": "chatml"}).status_code == 201
    )


def test_evaluation_rows_are_tried_too(client: TestClient, home: Path) -> None:
    write_bytes_model(home / "models" / "strict", template=NO_SYSTEM)
    write_rows(home, PLAIN)
    write_rows(home, SYSTEM, name="held.jsonl")
    _, param, message = refusal(client, model="strict", evaluation={"dataset": "held.jsonl", "every_steps": 1})
    assert param == "evaluation.dataset"
    assert "no system message" in message


def highest_id(folder: Path) -> int:
    """Of the tokens in PLAIN."""
    tokenizer = read_tokenizer(folder)
    text = tokenizer.apply_chat_template(PLAIN["messages"], tools=None, tokenize=False, add_generation_prompt=False)
    return max(tokenizer(text)["input_ids"])


def test_token_beyond_embeddings_is_refused(client: TestClient, home: Path) -> None:
    folder = write_bytes_model(home / "models" / "short")
    highest = highest_id(folder)
    write_bytes_model(folder, embeddings=highest)
    write_rows(home, *[PLAIN] * 20)
    code, param, message = refusal(client, model="short")
    assert (code, param) == ("model_unsupported", "model")
    assert f'row 1 has the token "Ċ" with the id {highest}' in message
    assert f"embeddings for ids below {highest}" in message


@pytest.mark.parametrize("more", [1, 90])
def test_padded_embeddings_and_unused_tokens_are_accepted(client: TestClient, home: Path, more: int) -> None:
    folder = write_bytes_model(home / "models" / "other")
    write_bytes_model(folder, embeddings=highest_id(folder) + more)
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["added_tokens"].append({**raw["added_tokens"][0], "id": 500, "content": "[PAD]"})
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    write_rows(home, PLAIN)
    assert post_bytes(client, model="other").status_code == 201


@pytest.mark.parametrize("text", ['{"version": "1.0"}', "[" * 9999, '{"model": {"type": "NewKind"}}'])
def test_unreadable_tokenizer_is_refused(client: TestClient, bytes_model: Path, text: str) -> None:
    (bytes_model / "tokenizer.json").write_text(text)
    code, param, message = refusal(client)
    assert (code, param) == ("model_unsupported", "model")
    assert "cannot be read from tokenizer.json" in message
    assert "newer" in message


def test_tokenizer_that_splits_special_tokens_is_refused(client: TestClient, bytes_model: Path) -> None:
    for split in (False, True):
        (bytes_model / "tokenizer_config.json").write_text(
            json.dumps({"eos_token": "<|im_end|>", "split_special_tokens": split})
        )
        if not split:
            assert post_bytes(client).status_code == 201
    code, param, message = refusal(client)
    assert (code, param) == ("model_unsupported", "model")
    assert "has split_special_tokens in tokenizer_config.json" in message


def test_missing_tokenizer_is_refused(client: TestClient, bytes_model: Path) -> None:
    (bytes_model / "tokenizer.json").unlink()
    code, param, message = refusal(client)
    assert (code, param) == ("model_unsupported", "model")
    assert message.startswith("model: bytes has no tokenizer.json")
    assert "save_pretrained" in message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{}", "has no model_type"),
        ('{"model_type": "lama"}', "did you mean llama?"),
        ('{"model_type": "clip"}', "not have as an architecture for text generation"),
        ('{"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}', "custom code, which is never run"),
        ('{"model_type": "llama", "model_type": "qwen3"}', 'the key "model_type" is given more than once'),
    ],
)
def test_unknown_architecture_is_refused(client: TestClient, bytes_model: Path, config: str, words: str) -> None:
    (bytes_model / "config.json").write_text(config)
    code, param, message = refusal(client)
    assert (code, param) == ("model_unsupported", "model")
    assert words in message


def test_missing_chat_template_is_refused(client: TestClient, home: Path) -> None:
    write_bytes_model(home / "models" / "base", template=None)
    code, param, message = refusal(client, model="base")
    assert (code, param) == ("model_unsupported", "model")
    assert "dataset.chat_template" in message


def test_passed_trial_is_not_repeated(
    client: TestClient, home: Path, bytes_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[str] = []
    run = DatasetSandbox.run

    def watched(self: DatasetSandbox, task: Any, *limits: float) -> Any:
        tasks.append(task.kind)
        return run(self, task, *limits)

    monkeypatch.setattr(DatasetSandbox, "run", watched)
    for _ in range(3):
        assert post_bytes(client).status_code == 201
    assert tasks == ["try"]
    write_dataset(home / "datasets" / "rows.jsonl", rows=4)
    assert post_bytes(client).status_code == 201
    (bytes_model / "chat_template.jinja").write_text(CHATML + " ")
    assert post_bytes(client).status_code == 201
    assert tasks == ["try"] * 3


def test_untried_job_is_taken_while_readers_are_busy(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(self: DatasetSandbox, task: Any, *limits: float) -> Any:
        raise SandboxBusy

    monkeypatch.setattr(DatasetSandbox, "run", busy)
    assert post_bytes(client).status_code == 201
