"""`python -m api`, and whom it lets in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.__main__ import main
from store.access import keys
from store.session import Sessions
from tests.support.servers import free_port
from tests.support.settings import SECRET_KEY
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """As it was: a service that starts in this process closes its files to others."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def variables(database_url: str, broker_url: str, home: Path) -> dict[str, str]:
    return {
        "FINETUNED_DATABASE_URL": database_url,
        "FINETUNED_BROKER_URL": broker_url,
        "FINETUNED_HOME": str(home),
        "FINETUNED_SECRET_KEY": SECRET_KEY.get_secret_value(),
        "FINETUNED_PORT": str(free_port()),
        "FINETUNED_HOST": "0.0.0.0",
    }


def start(database_url: str, broker_url: str, home: Path, **settings: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **variables(database_url, broker_url, home), **settings}
    return subprocess.Popen(
        [sys.executable, "-m", "api"], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_public_api_needs_keys_to_start(sessions: Sessions, database_url: str, broker_url: str, tmp_path: Path) -> None:
    api = start(database_url, broker_url, tmp_path, FINETUNED_PORT="8001")
    output, _ = api.communicate(timeout=60)
    assert api.returncode == 1
    assert "FINETUNED_HOST is 0.0.0.0" in output
    assert "FINETUNED_ADMIN_KEY" in output
    assert "finetuned keys create --owner NAME --admin --url http://127.0.0.1:8001\n" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("host", "require"), [("::", None), ("192.168.7.9", None), ("0.0.0.0", "false"), ("192.168.7.9", "false")]
)
def test_keyless_public_start_is_never_allowed(
    sessions: Sessions,
    database_url: str,
    broker_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    require: str | None,
) -> None:
    settings = variables(database_url, broker_url, tmp_path) | {"FINETUNED_HOST": host}
    for name, value in (settings | ({"FINETUNED_REQUIRE_KEYS": require} if require else {})).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"FINETUNED_HOST is {host}, by which others"):
        main()


@pytest.mark.parametrize("keyed", ["by the settings", "in the database"])
def test_with_a_key_it_starts(
    sessions: Sessions, database_url: str, broker_url: str, tmp_path: Path, keyed: str
) -> None:
    settings = {}
    if keyed == "by the settings":
        settings["FINETUNED_ADMIN_KEY"] = "an-admin-key-of-some-length"
    else:
        with sessions.begin() as session:
            keys.create(session, "anna", None, admin=True)
    api = start(database_url, broker_url, tmp_path, **settings)
    assert api.stdout
    reported = ""

    def running() -> bool:
        nonlocal reported
        assert api.stdout
        reported += api.stdout.readline()
        return "running on" in reported or api.poll() is not None

    until(running)
    api.terminate()
    assert "running on" in reported + api.communicate(timeout=60)[0]


def test_guessable_admin_key_is_refused(sessions: Sessions, database_url: str, broker_url: str, tmp_path: Path) -> None:
    output, _ = start(database_url, broker_url, tmp_path, FINETUNED_ADMIN_KEY="secret").communicate(timeout=60)
    assert "FINETUNED_ADMIN_KEY" in output
    assert "secret" not in output.replace("FINETUNED_ADMIN_KEY", "")
