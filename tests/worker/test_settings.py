import sys
from datetime import timedelta
from pathlib import Path

import pytest

from runtime.settings import read_settings
from worker.settings import WorkerSettings


@pytest.fixture(autouse=True)
def required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"DATABASE_URL": "postgresql://", "BROKER_URL": "redis://", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(f"FINETUNED_{name}", value)


@pytest.mark.parametrize(("given", "seconds"), [("10", 10), ("0.5", 0.5), ("PT1M", 60), ("00:01:30", 90)])
def test_time_is_seconds_or_a_duration(monkeypatch: pytest.MonkeyPatch, given: str, seconds: float) -> None:
    monkeypatch.setenv("FINETUNED_LEASE", given)
    assert read_settings(WorkerSettings).lease == timedelta(seconds=seconds)


def test_name_that_can_be_no_queues_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FINETUNED_WORKER", "box 1")
    with pytest.raises(SystemExit, match="FINETUNED_WORKER: String should match pattern"):
        read_settings(WorkerSettings)


@pytest.mark.parametrize("given", ["10.0.0.2:80", "0.0.0.0", "::", "[fd00::2]", "fe80::1%eth0", "a b", "http://a"])
def test_address_that_no_url_may_have_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("FINETUNED_INFERENCE_ADDRESS", given)
    with pytest.raises(SystemExit, match="FINETUNED_INFERENCE_ADDRESS"):
        read_settings(WorkerSettings)


@pytest.mark.parametrize(
    ("database", "address", "kind", "warned"),
    [
        ("10.0.0.1", "127.0.0.1", "preemptible", True),
        ("db", "::1", "kept", True),
        ("10.0.0.1", "fd00::2", "preemptible", False),
        ("10.0.0.1", "gpu-box-2", "preemptible", False),
        ("127.0.0.1", "127.0.0.1", "preemptible", False),
        ("localhost", "localhost", "preemptible", False),
        ("", "127.0.0.1", "preemptible", False),
        ("10.0.0.1", "127.0.0.1", "off", False),
    ],
)
def test_loopback_with_a_remote_database_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, database: str, address: str, kind: str, warned: bool
) -> None:
    monkeypatch.setenv("FINETUNED_DATABASE_URL", f"postgresql+psycopg://user:word@{database}/name")
    monkeypatch.setenv("FINETUNED_INFERENCE_ADDRESS", address)
    monkeypatch.setenv("FINETUNED_INFERENCE", kind)
    problem = read_settings(WorkerSettings).inference_problem
    assert (problem is not None) == warned
    assert "word" not in (problem or "").split()


def test_vllm_is_a_command_with_options(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings(WorkerSettings).inference_vllm is None
    monkeypatch.setenv("FINETUNED_INFERENCE_VLLM", "")
    assert read_settings(WorkerSettings).inference_vllm is None
    monkeypatch.setenv("FINETUNED_INFERENCE_VLLM", f"{sys.executable} -m vllm")
    monkeypatch.setenv("FINETUNED_INFERENCE_VLLM_OPTIONS", "--max-lora-rank 128")
    settings = read_settings(WorkerSettings)
    assert settings.inference_vllm == [sys.executable, "-m", "vllm"]
    assert settings.inference_vllm_options == ["--max-lora-rank", "128"]


def test_vllm_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNED_INFERENCE_VLLM", "/opt/no/vllm")
    with pytest.raises(SystemExit, match="no such program"):
        read_settings(WorkerSettings)
