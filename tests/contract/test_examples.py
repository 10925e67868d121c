import hashlib
import json
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from contract.examples import ROLES, digest, read_examples
from contract.failure import FailureReason, InputError

HELLO = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


ROW = json.dumps({"messages": HELLO}) + "\n"


def write(folder: Path, rows: list[object]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(read_examples(path, "auto"))
    assert caught.value.failure.reason == FailureReason.DATASET_INVALID
    return caught.value.failure.message


def test_messages_are_read_as_they_are(tmp_path: Path) -> None:
    assert list(read_examples(write(tmp_path, [{"messages": HELLO}]), "auto")) == [HELLO]


def test_alpaca_becomes_a_conversation(tmp_path: Path) -> None:
    row = {"instruction": "Translate", "input": "hi", "output": "hallo", "system": "Be brief."}
    (conversation,) = read_examples(write(tmp_path, [row]), "auto")
    assert [message["role"] for message in conversation] == ["system", "user", "assistant"]
    assert conversation[1]["content"] == "Translate\n\nhi"
    assert conversation[2]["content"] == "hallo"


def test_a_json_array_is_read_like_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": "a", "output": "b"}] * 3, indent=1))
    assert len(list(read_examples(path, "auto"))) == 3


def test_row_57_without_an_answer_is_named(tmp_path: Path) -> None:
    rows: list[object] = [{"messages": HELLO}] * 60
    rows[56] = {"messages": HELLO[:1]}
    assert refusal(write(tmp_path, rows)).startswith("row 57: has no answer")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 'messages[0].role is "robot"'),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content must be text"),
        ({"instruction": "a", "output": " "}, "has no answer"),
        ({"instruction": "", "output": "b"}, "instruction is empty"),
        ({"question": "a"}, "question"),
        ([1, 2], "must be a JSON object"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content is not whole text"),
        ({"instruction": "a", "output": "b\udfff"}, "output is not whole text"),
        ({"\ud800": "a"}, "has the fields"),
        ({"messages": "\ud800"}, "messages must be a list"),
        ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages[0].content has a NUL"),
        ({"instruction": "a\0", "output": "b"}, "instruction has a NUL"),
        ({"messages": [HELLO[0], {**HELLO[1], "weight": 0}]}, "messages[1].weight is 0"),
        (
            {"messages": [HELLO[0], {"role": "assistant", "content": None, "tool_calls": [{}]}]},
            "messages[1].tool_calls",
        ),
        ({"messages": [HELLO[0], {**HELLO[1], "function_call": {"name": "f"}}]}, "messages[1].function_call"),
        ({"messages": HELLO, "tools": [{"type": "function"}]}, "tools"),
    ],
)
def test_a_bad_row_is_told_its_number_and_its_fault(tmp_path: Path, row: object, words: str) -> None:
    message = refusal(write(tmp_path, [row]))
    assert message.startswith("row 1")
    assert words in message


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert "no rows" in refusal(write(tmp_path, []))


def test_a_row_that_is_not_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": HELLO}) + "\n{broken\n")
    assert refusal(path).startswith("row 2: is not JSON")


def test_bytes_that_are_not_utf8_are_named_by_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"instruction": "\xff\xfe", "output": "b"}\n')
    assert refusal(path).startswith("row 1: is not UTF-8")


def test_blank_lines_do_not_count_but_later_rows_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n" + json.dumps({"messages": HELLO}) + "\n\n{}\n")
    assert refusal(path).startswith("row 2")


def test_a_row_nested_too_deep_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("[" * 100_000 + "\n")
    assert "nested too deep" in refusal(path)


def test_what_openai_writes_beside_the_text_and_changes_nothing_is_passed_over(tmp_path: Path) -> None:
    spoken = [{**HELLO[0], "name": "Ann"}, {**HELLO[1], "weight": 1, "tool_calls": None, "id": 7}]
    assert list(read_examples(write(tmp_path, [{"messages": spoken, "tools": []}]), "auto")) == [HELLO]


def test_a_number_of_too_many_digits_is_named_by_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": ' + "1" * 5_000 + "}\n")
    assert "row 1: has a number of too many digits" in refusal(path)


@pytest.mark.parametrize("text", ["[{}", "[{},]", '[{"instruction": "a", "output": "b"} 3]', "[] []", "[1]x", "["])
def test_an_array_that_is_not_whole_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    refusal(path)


def test_a_broken_row_of_an_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": "a", "output": "b"}] * 2)[:-1] + ", {broken}]")
    assert refusal(path).startswith("row 3: is not JSON")


def test_a_byte_order_mark_is_no_part_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([{"messages": HELLO}]).encode())
    assert list(read_examples(path, "auto")) == [HELLO]


def test_the_digest_is_of_what_was_read(tmp_path: Path) -> None:
    for name, text in {"a.json": json.dumps([{"messages": HELLO}]) + "\n\n", "a.jsonl": "\n" + ROW * 3}.items():
        (tmp_path / name).write_text(text)
        sha256 = hashlib.sha256()
        list(read_examples(tmp_path / name, "auto", sha256=sha256))
        assert sha256.hexdigest() == digest(tmp_path / name)


def test_a_file_larger_than_the_service_takes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [{"messages": HELLO}] * 10)
    size = path.stat().st_size
    assert len(list(read_examples(path, "auto", largest=size))) == 10
    with pytest.raises(InputError, match=f"larger than {size - 1} bytes"):
        list(read_examples(path, "auto", largest=size - 1))


def sparse(path: Path, start: bytes, size: int) -> Path:
    """A file of `size` bytes that takes no room on the disk: after `start` come zeros."""
    path.write_bytes(start)
    os.truncate(path, size)
    return path


def test_a_row_that_is_too_long_is_refused_by_number_and_never_held_whole(tmp_path: Path) -> None:
    path = sparse(tmp_path / "rows.jsonl", (ROW + '{"instruction": "').encode(), 2 << 30)
    tracemalloc.start()
    try:
        assert refusal(path).startswith("row 2: is longer than 64 MiB")
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_an_array_that_is_too_large_to_hold_is_refused(tmp_path: Path) -> None:
    path = sparse(tmp_path / "rows.json", b"[{}", 2 << 30)
    assert "JSON Lines" in refusal(path)


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, [{"messages": HELLO}])
    path.chmod(0)
    with not_root():
        assert "rows.jsonl cannot be read: Permission denied" in refusal(path)


@contextmanager
def not_root() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_MESSAGE = st.fixed_dictionaries(
    {}, optional={"role": st.sampled_from(ROLES) | _JSON, "content": _JSON, "weight": _JSON}
)
_ROW = _JSON | st.fixed_dictionaries(
    {}, optional={"messages": st.lists(_MESSAGE) | _JSON, "instruction": _JSON, "input": _JSON, "output": _JSON}
)
_FILE = (
    st.binary()
    | st.text().map(lambda text: text.encode())
    | st.lists(_ROW).map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode())
    | st.lists(_ROW).map(lambda rows: json.dumps(rows).encode())
    | st.builds(lambda rows, end: json.dumps(rows).encode()[:end], st.lists(_ROW), st.integers(0, 200))
)


@given(_FILE, st.sampled_from(["auto", "messages", "alpaca"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(b"[" * 100_000, "auto")
@example(b'[{"a":' * 100_000, "messages")
@example(b'{"messages": ' + b"[" * 900 + b"]" * 900 + b"}", "auto")
@example(b'{"instruction": "\\ud800", "output": "b"}', "auto")
def test_whatever_a_file_holds_is_conversations_or_an_input_error_that_can_be_sent(
    tmp_path: Path, content: bytes, format: Any
) -> None:
    path = tmp_path / "rows"
    path.write_bytes(content)
    message = ""
    try:
        for conversation in read_examples(path, format):
            for spoken in conversation:
                spoken["content"].encode()
    except InputError as error:
        message = json.loads(error.failure.model_dump_json())["message"]
    assert "\0" not in message
    assert len(message) < 1_000
