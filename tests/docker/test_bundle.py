"""What `scripts/bundle` puts into the file for a machine without internet. tests/deploy/run installs one."""

import os
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
DOCKER = """#!/bin/sh
echo "$*" >>"$DOCKER_CALLS"
case "$*" in
"compose config --images") printf 'postgres:18\\nfinetuned-api:1\\npostgres:18\\n' ;;
"image save --output"*) shift 3; echo "$*" >"$1" ;;
esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command lines that docker was run with."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(DOCKER)
    (tmp_path / "bin/docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def bundle(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([ROOT / "scripts/bundle", *arguments], capture_output=True, text=True, timeout=120)


def test_bundle_has_sources_and_every_image_once(calls: Path, tmp_path: Path) -> None:
    done = bundle(str(tmp_path / "all.tar"), "images")
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / "all.tar") as packed:
        names = set(packed.getnames())
        saved = packed.extractfile(f"finetuned-{VERSION}/offline/images.tar")
        assert saved is not None
        assert saved.read().decode().split()[1:] == ["finetuned-api:1", "postgres:18"]
    assert {f"finetuned-{VERSION}/{name}" for name in ("docker-compose.yml", "docker/init", "scripts/setup")} <= names
    assert not any(name.endswith((".env", "secrets")) for name in names)
    assert calls.read_text().splitlines()[:2] == [
        "compose build --quiet",
        "compose pull --quiet --ignore-buildable --policy missing",
    ]
    assert [path for path in tmp_path.iterdir() if path.name.startswith("all.tar.")] == []


def test_existing_file_is_not_replaced(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "all.tar").write_text("precious")
    done = bundle(str(tmp_path / "all.tar"))
    assert (done.returncode, "exists" in done.stderr, (tmp_path / "all.tar").read_text()) == (1, True, "precious")
    assert not calls.exists()


def test_unknown_part_prints_the_usage(calls: Path, tmp_path: Path) -> None:
    done = bundle(str(tmp_path / "all.tar"), "models")
    assert (done.returncode, "usage" in done.stderr, calls.exists()) == (2, True, False)
