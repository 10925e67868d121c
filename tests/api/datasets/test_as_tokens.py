"""What a model would make of a dataset: its lengths, and its rows as it sees them."""

import os
from pathlib import Path

from fastapi.testclient import TestClient

from tests.support.api import ROWS_FILE, error_of, upload
from tests.support.files import write_tokenizer


def test_lengths_are_counted_by_tokenizer_and_length(client: TestClient, home: Path) -> None:
    write_tokenizer(home / "models" / "tiny")
    dataset = upload(client, ROWS_FILE * 2)
    report = client.get(f"/datasets/{dataset['id']}/report?model=tiny").json()
    assert (report["examples"], report["truncated"], report["max_length"]) == (2, 0, 2048)
    assert 0 < report["supervised_fraction"] < 1
    longest = report["percentiles"]["100"]
    answer = client.get(f"/datasets/{dataset['id']}/report?model=tiny&max_length={longest - 2}").json()
    assert (answer["truncated"], answer["truncated_fraction"]) == (2, 1.0)
    assert len(list((home / "cache" / "lengths").iterdir())) == 1
    # Another tokenizer under the same name is measured anew, though its files look the same from outside.
    model = home / "models" / "tiny"
    before = {path: path.stat() for path in model.iterdir()}
    shorter = "{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}"
    size = before[model / "chat_template.jinja"].st_size
    write_tokenizer(model, shorter + "{#".ljust(size - len(shorter) - 2) + "#}")
    for path, status in before.items():
        assert path.stat().st_size == status.st_size
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    answer = client.get(f"/datasets/{dataset['id']}/report?model=tiny").json()
    assert answer["percentiles"]["100"] < longest


def test_rows_are_shown_as_the_model_sees_them(client: TestClient, home: Path) -> None:
    write_tokenizer(home / "models" / "tiny")
    dataset = upload(client, ROWS_FILE + b"{\n" + ROWS_FILE)
    found = client.get(f"/datasets/{dataset['id']}/preview?model=tiny&limit=2").json()
    assert ([each["row"] for each in found["data"]], found["has_more"]) == ([1, 2], True)
    (text,) = found["data"][0]["texts"]
    assert text["text"].startswith("<|im_start|>user\nhi<|im_end|>")
    assert "".join(token["text"] for token in text["tokens"] if token["supervised"]) == "hello<|im_end|>"
    assert "not JSON" in found["data"][1]["problem"]
    plain = client.get(f"/datasets/{dataset['id']}/preview?model=tiny&chat_template=plain").json()
    assert plain["data"][0]["texts"][0]["text"] == "hihello<|im_end|>"


PAIR = b'{"prompt": "hi", "chosen": "hello", "rejected": "go away"}\n'
RATED = b'{"prompt": "hi", "completion": "hello", "label": 1}\n{"prompt": "hi", "completion": "no", "label": 0}\n'


def test_pairs_are_measured_and_shown(client: TestClient, home: Path) -> None:
    write_tokenizer(home / "models" / "tiny")
    dataset = upload(client, PAIR * 2)
    assert dataset["report"]["learned"] == "pairs"
    pairs = client.get(f"/datasets/{dataset['id']}/report?model=tiny").json()["pairs"]
    assert (pairs["chosen"]["mean"], pairs["rejected"]["mean"]) == (6, 8)
    found = client.get(f"/datasets/{dataset['id']}/preview?model=tiny&limit=1").json()["data"]
    assert [text["answer"] for text in found[0]["texts"]] == ["chosen", "rejected"]


def test_rows_are_read_for_the_given_method(client: TestClient, home: Path) -> None:
    write_tokenizer(home / "models" / "tiny")
    rated = upload(client, RATED)
    place = f"/datasets/{rated['id']}"
    assert rated["report"]["learned"] == "answers"
    shown = client.get(f"{place}/preview?model=tiny&method=kto").json()["data"]
    assert [each["desirable"] for each in shown] == [True, False]
    shown = client.get(f"{place}/preview?model=tiny").json()["data"]
    assert [each["desirable"] for each in shown] == [None, None]
    error = error_of(client.get(f"{place}/preview?model=tiny&method=dpo"), 422, "dataset_invalid")
    assert "has no pairs of answers" in error["message"]
    for method, ratings in (("kto", {"desirable": 1, "undesirable": 1}), ("sft", None)):
        assert client.get(f"{place}/report?model=tiny&method={method}").json()["ratings"] == ratings


def test_model_that_cannot_show_them_is_named(client: TestClient, home: Path) -> None:
    dataset = upload(client)
    (home / "models" / "tiny" / "tokenizer.json").unlink()
    for model, code in (("tiny", "model_unsupported"), ("none", "model_not_found"), ("org/name", "model_not_found")):
        for what in ("report", "preview"):
            answer = client.get(f"/datasets/{dataset['id']}/{what}?model={model}")
            assert error_of(answer, 422, code)["param"] == "model"
