import os
import subprocess
import sys
from pathlib import Path

import pytest

SECRETS = {
    "FINETUNED_DATABASE_URL": "postgresql+psycopg://finetuned:s3cret@db/finetuned",
    "FINETUNED_BROKER_URL": "redis://:s3cret@broker:6379/0",
}


def start(part: str, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FINETUNED_")}
    return subprocess.run(
        [sys.executable, "-m", part], env={**kept, **settings}, capture_output=True, text=True, timeout=60
    )


def test_a_setting_that_is_missing_is_named_on_one_line(tmp_path: Path) -> None:
    ended = start("api", **SECRETS)
    assert ended.returncode == 1
    assert ended.stderr == "FINETUNED_HOME: Field required\n"


def test_each_setting_that_is_wrong_has_its_line() -> None:
    ended = start("api", **SECRETS, FINETUNED_PORT="many", FINETUNED_HOME="/tmp", FINETUNED_LARGEST_DATASET="0")
    assert ended.returncode == 1
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == ["FINETUNED_PORT", "FINETUNED_LARGEST_DATASET"]


@pytest.mark.parametrize("part", ["api", "worker"])
def test_what_a_setting_keeps_secret_is_not_told_when_another_is_missing(part: str) -> None:
    ended = start(part, **SECRETS)
    assert ended.returncode != 0
    assert "FINETUNED_HOME" in ended.stderr or "home" in ended.stderr
    assert "s3cret" not in ended.stderr + ended.stdout
