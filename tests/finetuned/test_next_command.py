from pathlib import Path

import pytest

from finetuned.cli.next_command import beside_home, beside_service, on_service, start_at
from finetuned.stack.settings import StackSettings, default_home
from tests.finetuned.fake_api import FakeApi
from tests.finetuned.running import finetuned


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "API_KEY", "HOME", "HOST", "PORT"):
        monkeypatch.delenv(f"FINETUNED_{name}", raising=False)


def test_a_command_names_the_service_that_it_would_not_reach_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_service("watch job_1", "http://127.0.0.1:8000") == "finetuned watch job_1"
    assert on_service("watch job_1", "http://host:1/") == "finetuned watch job_1 --url http://host:1/"
    monkeypatch.setenv("FINETUNED_URL", "http://host:1")
    assert on_service("watch job_1", "http://host:1") == "finetuned watch job_1"
    assert on_service("watch job_1", "http://127.0.0.1:8000") == "finetuned watch job_1 --url http://127.0.0.1:8000"


def test_a_command_says_that_it_wants_a_key_but_not_which(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_service("watch job_1", "http://127.0.0.1:8000", "sk-1") == "finetuned watch job_1 --key KEY"
    monkeypatch.setenv("FINETUNED_API_KEY", "sk-1")
    assert on_service("watch job_1", "http://127.0.0.1:8000", "sk-1") == "finetuned watch job_1"


def test_a_command_names_a_home_that_is_not_the_usual_one(tmp_path: Path) -> None:
    assert beside_home("models", default_home()) == "finetuned models"
    assert beside_home("models", tmp_path / "a b") == f"finetuned models --home '{tmp_path}/a b'"


def test_a_command_for_another_terminal_counts_on_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:8000"
    assert beside_service("list", url, needs_key=False) == "finetuned list"
    assert beside_service("list", url, needs_key=True) == "finetuned list --key KEY"
    monkeypatch.setenv("FINETUNED_API_KEY", "sk-1")
    assert beside_service("list", url, needs_key=True) == "finetuned list --key KEY"
    for said in ("http://host:1", "http://host:2"):
        monkeypatch.setenv("FINETUNED_URL", said)
        assert beside_service("list", "http://host:1", needs_key=False) == "finetuned list --url http://host:1"
    assert beside_service("list", url, needs_key=False) == f"finetuned list --url {url}"
    monkeypatch.setenv("FINETUNED_HOME", str(tmp_path))
    assert beside_home("models", tmp_path) == f"finetuned models --home {tmp_path}"


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("http://127.0.0.1:8000", "finetuned up"),
        ("http://localhost:8001/", "finetuned up --port 8001"),
        ("http://[::1]:8001", "finetuned up --host ::1 --port 8001"),
        ("http://10.0.0.1:8000", None),
        ("https://127.0.0.1:8000", None),
    ],
)
def test_a_service_of_this_machine_is_started_where_it_was_looked_for(url: str, command: str | None) -> None:
    assert start_at(url) == command


def test_what_is_printed_after_an_option_has_the_option(api: FakeApi) -> None:
    api.answers["GET /webhooks"] = (200, {"data": [], "has_more": False})
    api.answers["GET /datasets"] = (200, {"data": [], "has_more": False})
    api.answers["POST /jobs/job_1/retry"] = (200, {"id": "job_1", "status": "queued"})
    for words in (("webhooks",), ("datasets",), ("retry", "job_1")):
        assert f" --url {api.url}" in finetuned(*words, "--url", api.url).stderr
    assert "Start one with: finetuned up --port 9\n" in finetuned("list", "--url", "http://127.0.0.1:9").stderr


@pytest.mark.parametrize(
    ("host", "said", "needs"),
    [("127.0.0.1", "", False), ("localhost", "false", False), ("127.0.0.1", "true", True), ("0.0.0.0", "", True)],
)
def test_a_stack_knows_whether_its_api_wants_keys(tmp_path: Path, host: str, said: str, needs: bool) -> None:
    assert StackSettings(tmp_path, host, 1, {"FINETUNED_REQUIRE_KEYS": said}).needs_keys is needs


def test_no_folder_is_allowed_where_the_one_that_we_stand_in_would_open_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = StackSettings(tmp_path / "home", "127.0.0.1", 1, {})
    for folder, allowed in ((tmp_path, str(tmp_path)), (tmp_path / "home", ""), (Path("/"), "")):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        assert settings.part_environment("api", "", "")["FINETUNED_ALLOWED_PATHS"] == allowed
        assert (settings.nothing_allowed_because is None) == bool(allowed)
