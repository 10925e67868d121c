import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dataset.document import Document
from trainer.data.token_cache import cached_tokens
from trainer.data.tokens import Tokens, flatten

KEY, OTHER, THIRD = "aa" * 32, "bb" * 32, "cc" * 32
DOCUMENT = Document([7, 8, 9], [False, True, True])
TOKENS = flatten([[DOCUMENT]])
MAKER = """
    import sys, time
    from pathlib import Path
    from dataset.document import Document
    from trainer.data.token_cache import cached_tokens
    from trainer.data.tokens import flatten

    folder, key = Path(sys.argv[1]), sys.argv[2]

    def make():
        with (folder / "made").open("a") as file:
            file.write("x")
        print("making", flush=True)
        sys.stdin.read()
        return flatten([[Document([7, 8, 9], [False, True, True])]])

    print("made" if len(cached_tokens(folder, key, make).ids) == 3 else "wrong", flush=True)
"""


def never() -> Tokens:
    raise AssertionError("made anew")


def is_equal(one: Tokens, other: Tokens) -> bool:
    return all(torch.equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Tokens))


def of_bytes(size: int) -> Callable[[], Tokens]:
    return lambda: flatten([[Document([0] * (size // 4), [False] * (size // 4))]])


def start(folder: Path) -> "subprocess.Popen[str]":
    """A process that makes the tokens of KEY once its input is closed."""
    command = [sys.executable, "-c", textwrap.dedent(MAKER), str(folder), KEY]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def is_waiting_for_a_lock(pid: int) -> bool:
    """As the kernel tells it: a line with an arrow is of who waits."""
    return any("->" in line and str(pid) in line.split() for line in Path("/proc/locks").read_text().splitlines())


def wait_until_waiting(process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not is_waiting_for_a_lock(process.pid):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)


def test_tokens_are_made_once_and_read_after_that(tmp_path: Path) -> None:
    assert is_equal(cached_tokens(tmp_path / "new" / "folder", KEY, lambda: TOKENS), TOKENS)
    assert is_equal(cached_tokens(tmp_path / "new" / "folder", KEY, never), TOKENS)


def test_tokens_without_documents_are_cached_too(tmp_path: Path) -> None:
    for key, examples in {KEY: [], OTHER: [[]], THIRD: [[Document([], [])], [Document([1], [False])]]}.items():
        made = cached_tokens(tmp_path, key, lambda examples=examples: flatten(examples))  # type: ignore[misc]
        assert is_equal(cached_tokens(tmp_path, key, never), made)


@pytest.mark.parametrize("damage", ["cut", "emptied", "one bit", "a hole", "another key", "no metadata", "other names"])
def test_damaged_cache_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    cached_tokens(tmp_path, KEY, lambda: TOKENS)
    path = tmp_path / f"{KEY}.safetensors"
    whole = path.read_bytes()
    if damage == "another key":
        cached_tokens(tmp_path, OTHER, of_bytes(8))
        (tmp_path / f"{OTHER}.safetensors").rename(path)
    elif damage == "no metadata":
        save_file(load_file(path), path)
    elif damage == "other names":
        save_file({"ids": torch.zeros(3)}, path, metadata={"key": KEY})
    else:
        path.write_bytes(
            {
                "cut": whole[:-1],
                "emptied": b"",
                "one bit": whole[:-1] + bytes([whole[-1] ^ 1]),
                "a hole": whole[:-16] + bytes(16),
            }[damage]
        )
    assert is_equal(cached_tokens(tmp_path, KEY, lambda: TOKENS), TOKENS)
    assert is_equal(cached_tokens(tmp_path, KEY, never), TOKENS)


def test_one_of_two_processes_tokenises(tmp_path: Path) -> None:
    with start(tmp_path) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "making\n"
        with start(tmp_path) as second:
            wait_until_waiting(second)
            assert first.communicate()[0] == "made\n"
            assert second.communicate()[0] == "made\n"
    assert (tmp_path / "made").read_text() == "x"


def test_waiting_process_tokenises_after_a_kill(tmp_path: Path) -> None:
    with start(tmp_path) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "making\n"
        with start(tmp_path) as second:
            wait_until_waiting(second)
            first.send_signal(signal.SIGKILL)
            assert second.communicate()[0] == "making\nmade\n"
    assert is_equal(cached_tokens(tmp_path, KEY, never), TOKENS)


def test_failed_cache_write_is_repeated(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="made anew"):
        cached_tokens(tmp_path, KEY, never)
    assert list(tmp_path.glob("*.*")) == []
    assert is_equal(cached_tokens(tmp_path, KEY, lambda: TOKENS), TOKENS)


def test_least_recently_used_tokens_are_dropped(tmp_path: Path) -> None:
    for age, key in enumerate((KEY, OTHER)):
        cached_tokens(tmp_path, key, of_bytes(4000))
        os.utime(tmp_path / f"{key}.safetensors", (1000 + age, 1000 + age))
    used = cached_tokens(tmp_path, KEY, never)
    cached_tokens(tmp_path, THIRD, of_bytes(4000), most_bytes=10_000)
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {KEY, THIRD}
    cached_tokens(tmp_path, OTHER, of_bytes(40_000), most_bytes=10_000)
    assert {path.stem for path in tmp_path.glob("*.safetensors")} == {OTHER}
    assert used.ids.tolist() == [0] * 1000, "tokens in use can be read after their file is gone"


def test_abandoned_cache_file_is_removed_after_a_day(tmp_path: Path) -> None:
    for name, age in {"left.partial": 90_000, "being-written.partial": 10}.items():
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    cached_tokens(tmp_path, KEY, lambda: TOKENS)
    assert [path.name for path in tmp_path.glob("*.partial")] == ["being-written.partial"]
