from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from runtime.settings import DatabaseSettings, StoreSettings, read_settings

URL = "postgresql+psycopg://finetuned@postgres/finetuned"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("FINETUNED_DATABASE_URL", URL)
    monkeypatch.setenv("FINETUNED_BROKER_URL", "redis://default@valkey:6379/0")
    monkeypatch.setenv("FINETUNED_HOME", str(tmp_path))
    return monkeypatch


def secret_file(folder: Path, text: str) -> str:
    file = folder / "secret"
    file.write_text(text)
    return str(file)


def test_password_comes_from_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("FINETUNED_DATABASE_PASSWORD_FILE", secret_file(tmp_path, "p@ss/w0rd\n"))
    environment.setenv("FINETUNED_BROKER_PASSWORD_FILE", secret_file(tmp_path, "p@ss/w0rd\n"))
    settings = read_settings(StoreSettings)
    expected = "postgresql+psycopg://finetuned:p%40ss%2Fw0rd@postgres/finetuned"
    assert settings.database_url.get_secret_value() == expected
    assert settings.broker_url.get_secret_value() == "redis://default:p%40ss%2Fw0rd@valkey:6379/0"
    assert "w0rd" not in repr(settings)


def test_url_without_a_password_stays_as_it_is(environment: pytest.MonkeyPatch) -> None:
    assert read_settings(DatabaseSettings).database_url.get_secret_value() == URL


def test_whole_url_may_be_a_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.delenv("FINETUNED_DATABASE_URL")
    environment.setenv("FINETUNED_DATABASE_URL_FILE", secret_file(tmp_path, URL))
    assert read_settings(DatabaseSettings).database_url.get_secret_value() == URL


def test_empty_file_sets_nothing(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("FINETUNED_DATABASE_PASSWORD_FILE", secret_file(tmp_path, "\n"))
    assert read_settings(DatabaseSettings).database_password is None


@pytest.mark.parametrize(
    ("text", "also", "message"),
    [
        ("secret", "set", "FINETUNED_DATABASE_PASSWORD_FILE: FINETUNED_DATABASE_PASSWORD is set too; use one of them"),
        (None, None, "FINETUNED_DATABASE_PASSWORD_FILE: cannot read .*No such file"),
    ],
)
def test_unusable_secret_file_is_refused(
    environment: pytest.MonkeyPatch, tmp_path: Path, text: str | None, also: str | None, message: str
) -> None:
    file = str(tmp_path / "nothing") if text is None else secret_file(tmp_path, text)
    environment.setenv("FINETUNED_DATABASE_PASSWORD_FILE", file)
    if also is not None:
        environment.setenv("FINETUNED_DATABASE_PASSWORD", also)
    with pytest.raises(SystemExit, match=message):
        read_settings(DatabaseSettings)


@pytest.mark.parametrize("url", ["postgresql://user:other@host/name", "postgresql://host/name"])
def test_password_that_fits_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="database_url"):
        DatabaseSettings(database_password=SecretStr("secret"), database_url=SecretStr(url))
