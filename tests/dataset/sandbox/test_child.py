import json
import os
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.failure import FailureCode, InputError
from dataset.dataset_file import DatasetFile
from dataset.dataset_report import DatasetReport, Problem
from dataset.preview import Preview
from dataset.sandbox.child import DatasetSandbox, SandboxStopped
from dataset.sandbox.tasks import CheckFile, PreviewExamples, TokenizerRef
from tests.support.files import write_dataset, write_tokenizer


def check(path: Path | str, seconds: float = 120) -> DatasetReport:
    return DatasetSandbox().run(CheckFile(file=DatasetFile(path=Path(path)), max_bytes=None), seconds)


def preview(path: str, model: Path, seconds: float = 60) -> Preview:
    tokenizer = TokenizerRef(folder=model, chat_template=None)
    task = PreviewExamples(file=DatasetFile(path=Path(path)), tokenizer=tokenizer, max_length=2048, offset=0, limit=5)
    return DatasetSandbox().run(task, seconds)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    write_dataset(tmp_path / "rows.jsonl")
    return str(tmp_path / "rows.jsonl")


def see(tmp_path: Path, rows: str, template: str, seconds: float = 60) -> Preview:
    write_tokenizer(tmp_path / "model", template)
    return preview(rows, tmp_path / "model", seconds)


def test_task_returns_its_own_type(rows: str) -> None:
    assert check(rows).rows == 3


def test_refusal_keeps_its_reason(tmp_path: Path, rows: str) -> None:
    with pytest.raises(InputError, match=r"no tokenizer\.json") as refusal:
        preview(rows, tmp_path)
    assert refusal.value.failure.code is FailureCode.MODEL_UNSUPPORTED


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ ('a' * 9999999999) | length }}",
        "{% set ns = namespace(a=['a' * 999]) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    ],
    ids=["runs for ever", "takes all memory", "grows"],
)
def test_template_that_would_take_everything_is_ended(tmp_path: Path, rows: str, template: str) -> None:
    with pytest.raises(InputError, match=r"time or memory|longer than|more memory"):
        see(tmp_path, rows, template, seconds=10)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ namespace.__init__.__globals__['__builtins__'] }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    ],
)
def test_template_reaches_nothing_but_its_input(tmp_path: Path, rows: str, template: str) -> None:
    found = see(tmp_path, rows, template)
    assert all("chat template" in (example.problem or "") for example in found.data)


def test_deeply_nested_file_is_refused_briefly(tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    path.write_text('{"messages": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    found = check(path)
    assert found.errors == [Problem(row=1, message="is nested too deep")]


def test_service_s_secrets_are_not_handed_on(rows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNED_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    sandbox, seen = DatasetSandbox(), []
    os.mkfifo(tmp_path / "pipe")
    asking = threading.Thread(target=lambda: seen.append(stopped(sandbox, tmp_path / "pipe")))
    asking.start()
    deadline = time.monotonic() + 30
    while not (found := environments(b"-m\0dataset")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert all(b"secret" not in environment for environment in found)
    sandbox.stop()
    asking.join(30)
    assert seen == [True]


def stopped(sandbox: DatasetSandbox, path: Path) -> bool:
    """Reads what nobody writes, until it is ended."""
    try:
        sandbox.run(CheckFile(file=DatasetFile(path=path), max_bytes=None), 60)
    except SandboxStopped:
        return True
    return False


def environments(of: bytes) -> list[bytes]:
    """Of the children of this process."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            if f"\nPPid:\t{os.getpid()}\n" in status and of in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(Path(f"/proc/{pid}/environ").read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            pass
    return [each for each in found if each]


def test_overlong_task_leaves_nothing(rows: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="longer than 1 s"):
        see(tmp_path, rows, "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", 1)
    assert environments(b"-m\0dataset") == []


def test_gigabyte_line_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "')
        file.truncate(1 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b'"}\n' + json.dumps({"text": "short"}).encode() + b"\n")
    found = check(path)
    assert found.errors == [Problem(row=1, message="is longer than 64 MiB; split or shorten it")]
    assert (found.rows, found.examples) == (2, 1)


def test_packed_parquet_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    table = pa.table({"text": pa.array(["a" * (96 << 20)]).dictionary_encode().take([0] * 640)})
    pq.write_table(table, path)
    assert path.stat().st_size < 8 << 20
    (error,) = check(path).errors
    assert "rows too large" in error.message


def test_parquet_that_exceeds_memory_is_refused(tmp_path: Path) -> None:
    """Without Arrow's own schema beside it, its values are unpacked by the reader."""
    path = tmp_path / "bomb.parquet"
    table = pa.table({"text": pa.array(["a" * (96 << 20)]).dictionary_encode().take([0] * 640)})
    pq.write_table(table, path, store_schema=False)
    with pytest.raises(InputError, match="takes more memory to read than it may"):
        check(path)
