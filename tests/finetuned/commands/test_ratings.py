import json
from pathlib import Path
from typing import Any

from finetuned import Client
from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi

PATH = "/jobs/job_1/ratings"
GOOD: dict[str, Any] = {
    "id": "rating_1",
    "messages": [{"role": "user", "content": "What is 2 plus 2?"}],
    "answer": {"role": "assistant", "content": "Vier – 4."},
    "model": "ft:tiny",
    "label": True,
}
BETTER = {
    **GOOD,
    "id": "rating_2",
    "label": None,
    "rejected": {"role": "assistant", "content": "5."},
    "rejected_model": "tiny",
}
ROW = {"messages": [*GOOD["messages"], {"role": "assistant", "content": "Vier\u2028– 4."}], "label": True}
LINE = json.dumps(ROW, ensure_ascii=False) + "\n"


def prepare(api: FakeApi) -> None:
    api.answers[f"GET {PATH}"] = (200, {"data": [BETTER, GOOD], "has_more": False})
    api.answers[f"GET {PATH}-kto.jsonl"] = (200, LINE.encode() * 2)


def test_client_rates_lists_and_deletes(api: FakeApi) -> None:
    prepare(api)
    api.answers[f"POST {PATH}"] = (201, GOOD)
    api.answers[f"DELETE {PATH}/rating_1"] = (200, {"id": "rating_1", "deleted": True})
    with Client(api.url) as client:
        made = client.ratings.create("job_1", GOOD["messages"], GOOD["answer"], "ft:tiny", label=True)
        better, good = client.ratings.of("job_1")
        client.ratings.delete("job_1", made.id)
    assert made == good
    assert (good.label, good.rejected, better.label, better.rejected_model) == (True, None, None, "tiny")
    assert json.loads(api.bodies[0]) == {name: GOOD[name] for name in ("messages", "answer", "model", "label")}


def test_rows_arrive_whole_and_as_a_file(api: FakeApi, tmp_path: Path) -> None:
    prepare(api)
    with Client(api.url) as client:
        assert client.ratings.rows("job_1", "kto") == [ROW, ROW]
        client.ratings.save("job_1", "kto", tmp_path / "kto.jsonl")
    assert (tmp_path / "kto.jsonl").read_text() == LINE * 2


def test_command_lists_ratings_and_prints_rows(api: FakeApi) -> None:
    prepare(api)
    listed = finetuned("ratings", "job_1", "--url", api.url)
    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:3]] == [
        ["rating_2", "better"],
        ["rating_1", "good"],
    ], listed.stderr
    rows = finetuned("ratings", "job_1", "--rows", "kto", "--url", api.url)
    assert [json.loads(line) for line in rows.stdout.split("\n")[:-1]] == [ROW, ROW]
    as_json = finetuned("ratings", "job_1", "--rows", "kto", "--json", "--url", api.url)
    assert json.loads(as_json.stdout) == [ROW, ROW]
