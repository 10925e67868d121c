import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.failure import FailureCode, InputError
from dataset.dataset_file import DatasetFile
from dataset.dataset_report import DatasetReport, Problem
from dataset.preview import Preview
from dataset.sandbox.answer import MAX_MEMORY
from dataset.sandbox.child import DatasetSandbox, SandboxLimitExceeded, SandboxStopped
from dataset.sandbox.task_process import ForkServer
from dataset.sandbox.tasks import CheckFile, PreviewExamples, TokenizerRef
from tests.support.files import write_dataset, write_tokenizer
from tests.support.waiting import until


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


@pytest.fixture
def server() -> Iterator[ForkServer]:
    """One of the test's own."""
    server = ForkServer()
    yield server
    server.stop()


def test_service_s_secrets_are_not_handed_on(
    server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNED_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with running_task(server, tmp_path) as task:
        assert all(b"PATH=" in each and b"secret" not in each for each in (environ(server.pid), environ(task)))


def test_task_is_limited_and_alone(server: ForkServer, tmp_path: Path) -> None:
    with running_task(server, tmp_path) as task:
        limits = Path(f"/proc/{task}/limits").read_text()
        assert re.search(rf"Max address space +{MAX_MEMORY} ", limits)
        assert re.search(r"Max cpu time +240 ", limits)
        assert re.search(r"Max core file size +0 ", limits)
        # The server's own socket would let it start others. The connection is the only socket.
        files = [os.readlink(file) for file in Path(f"/proc/{task}/fd").iterdir()]
        assert sum(file.startswith("socket:") for file in files) == 1
        # A thread that exists as the server forks would be missing in the task, with the locks that it holds.
        assert len(os.listdir(f"/proc/{server.pid}/task")) == 1


def test_tasks_end_with_their_server(server: ForkServer, tmp_path: Path) -> None:
    with running_task(server, tmp_path, ends=SandboxLimitExceeded) as task:
        os.kill(server.pid or 0, signal.SIGKILL)
        until(lambda: not environ(task))


def test_killed_server_is_replaced(server: ForkServer, rows: str) -> None:
    sandbox, task = DatasetSandbox(server=server), CheckFile(file=DatasetFile(path=Path(rows)), max_bytes=None)
    assert sandbox.run(task, 60).rows == 3
    killed = server.pid or 0
    os.kill(killed, signal.SIGKILL)
    assert sandbox.run(task, 60).rows == 3
    assert server.pid != killed


@contextmanager
def running_task(server: ForkServer, tmp_path: Path, ends: type[Exception] = SandboxStopped) -> Iterator[int]:
    """The pid of a task that reads what nobody writes, until it ends with `ends`."""
    sandbox, seen = DatasetSandbox(server=server), []
    os.mkfifo(tmp_path / "pipe")
    asking = threading.Thread(target=lambda: seen.append(refusal(sandbox, tmp_path / "pipe")))
    asking.start()
    try:
        yield until(lambda: next((pid for pid in children(server) if is_limited(pid)), None))
    finally:
        if ends is SandboxStopped:
            sandbox.stop()
        asking.join(30)
    assert seen == [ends]
    assert server.pid is not None
    assert children(server) == []


def refusal(sandbox: DatasetSandbox, path: Path) -> type[Exception] | None:
    try:
        sandbox.run(CheckFile(file=DatasetFile(path=path), max_bytes=None), 60)
    except Exception as error:
        return type(error)
    return None


def children(server: ForkServer) -> list[int]:
    """Those that still run."""
    return [
        pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent(pid) == server.pid and environ(pid)
    ]


def parent(pid: int) -> int | None:
    """None for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = re.search(r"\nPPid:\t(\d+)\n", status)
    return int(found[1]) if found else None


def is_limited(pid: int) -> bool:
    """The CPU time is the last limit that a task sets."""
    return re.search(r"Max cpu time +240 ", Path(f"/proc/{pid}/limits").read_text()) is not None


def environ(pid: int | None) -> bytes:
    """Empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_overlong_task_leaves_nothing(server: ForkServer, rows: str, tmp_path: Path) -> None:
    write_tokenizer(
        tmp_path / "model", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    task = PreviewExamples(
        file=DatasetFile(path=Path(rows)),
        tokenizer=TokenizerRef(folder=tmp_path / "model", chat_template=None),
        max_length=2048,
        offset=0,
        limit=5,
    )
    with pytest.raises(InputError, match="longer than 1 s"):
        DatasetSandbox(server=server).run(task, 1)
    assert server.pid is not None
    assert children(server) == []


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
