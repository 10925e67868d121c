import json

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi

SECRET = {
    "name": "mlflow",
    "owner": "anna",
    "created_at": "2026-01-02T03:04:05Z",
    "updated_at": "2026-01-02T03:04:05Z",
}


def test_secret_comes_from_a_pipe_and_is_not_shown(api: FakeApi) -> None:
    api.answers["PUT /secrets/mlflow"] = (200, SECRET)
    api.answers["GET /secrets"] = (200, {"data": [SECRET]})
    api.answers["DELETE /secrets/mlflow"] = (200, {"name": "mlflow", "deleted": True})
    here = ("--url", api.url)
    stored = finetuned("secrets", "set", "mlflow", *here, stdin="a-token\n")
    assert (stored.returncode, stored.stdout) == (0, "")
    assert json.loads(api.bodies[-1]) == {"value": "a-token"}
    assert "mlflow of anna is stored" in stored.stderr
    assert "a-token" not in stored.stderr
    assert "mlflow" in finetuned("secrets", *here).stdout
    assert "mlflow is deleted" in finetuned("secrets", "delete", "mlflow", *here).stderr


def test_value_is_no_argument(api: FakeApi) -> None:
    assert finetuned("secrets", "set", "mlflow", "a-token", "--url", api.url).returncode == 2
    assert api.bodies == []


def test_empty_list_says_how_to_store_one(api: FakeApi) -> None:
    api.answers["GET /secrets"] = (200, {"data": []})
    assert "finetuned secrets set NAME" in finetuned("secrets", "--url", api.url).stderr
