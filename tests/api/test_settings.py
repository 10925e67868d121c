import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from api.http.bounds import connection_limit
from api.http.server import bounds_of
from api.settings import ApiSettings
from runtime.settings import read_settings
from tests.support.settings import SECRET_KEY

SECRETS = {
    "FINETUNED_DATABASE_URL": "postgresql+psycopg://finetuned:s3cret@db/finetuned",
    "FINETUNED_BROKER_URL": "redis://:s3cret@broker:6379/0",
    "FINETUNED_SECRET_KEY": SECRET_KEY.get_secret_value(),
}


def start(part: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FINETUNED_")}
    return subprocess.run(
        [sys.executable, "-m", part], env={**kept, **settings}, capture_output=True, text=True, timeout=60
    )


def test_missing_setting_is_named_on_one_line(tmp_path: Path) -> None:
    ended = start("api", **SECRETS)
    assert ended.returncode == 1
    assert ended.stderr == "FINETUNED_HOME: Field required\n"


def test_each_setting_that_is_wrong_has_its_line() -> None:
    ended = start("api", **SECRETS, FINETUNED_PORT="many", FINETUNED_HOME="/tmp", FINETUNED_LARGEST_DATASET="0")
    assert ended.returncode == 1
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == ["FINETUNED_PORT", "FINETUNED_LARGEST_DATASET"]


@pytest.mark.parametrize("part", ["api", "worker"])
def test_settings_error_shows_no_secret(part: str) -> None:
    ended = start(part, **SECRETS)
    assert ended.returncode != 0
    assert "FINETUNED_HOME" in ended.stderr or "home" in ended.stderr
    assert "s3cret" not in ended.stderr + ended.stdout


@pytest.mark.parametrize("proxies", ["*", "proxy", "10.0.0.1/8", "0.0.0.0/0", "::/0", "10.0.0.1 10.0.0.2"])
def test_invalid_trusted_proxies_are_refused(proxies: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SECRETS, "FINETUNED_HOME": "/tmp", "FINETUNED_TRUSTED_PROXIES": proxies}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        read_settings(ApiSettings)
    assert str(ended.value.code).startswith("FINETUNED_TRUSTED_PROXIES: ")
    assert proxies.split(" ")[0] in str(ended.value.code)


def settings(**given: object) -> ApiSettings:
    secret = SecretStr("redis://none")
    given = {"secret_key": SECRET_KEY} | given
    return ApiSettings(database_url=secret, broker_url=secret, home=Path("/"), **given)  # type: ignore[arg-type]


def test_connections_stay_below_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: requested.append(limits))
    for hard, most in ((1024, 384), (4096, 1920), (524_288, 10_000), (64, 1), (resource.RLIM_INFINITY, 10_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, hard=hard: (64, hard))
        assert connection_limit() == most
        assert settings_bounds(connections=5000) == min(5000, most)
    assert requested[0] == (1024, 1024)


def settings_bounds(**given: object) -> int:
    return bounds_of(settings(**given)).connections


def test_explicit_address_bound_counts_on_loopback() -> None:
    usual = bounds_of(settings(trusted_proxies=("10.0.0.2",)))
    assert usual.per_address == 200
    assert set(usual.exempt) == {"127.0.0.0/8", "::1", "10.0.0.2"}
    given = bounds_of(settings(trusted_proxies=("10.0.0.2",), connections_per_address=50))
    assert (given.per_address, given.exempt) == (50, ("10.0.0.2",))
