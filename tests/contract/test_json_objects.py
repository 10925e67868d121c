import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.json_objects import RepeatedKey, find_repeated_key, unique_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_unique_keys_are_read_as_json_reads_them(value: Any) -> None:
    text = json.dumps(value)
    assert json.loads(text, object_pairs_hook=unique_object) == value
    assert find_repeated_key(text) is None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"model": "a", "model": "b"}', "model"),
        ('{"a": {"b": [1, {"c": 1, "c": 1}]}}', "a.b.c"),
        ('[{"a": 1}, {"\\u0061": 1, "a": 2}]', "a"),
    ],
)
def test_repeated_key_is_found_with_its_path(text: str, path: str) -> None:
    assert find_repeated_key(text) == path
    with pytest.raises(RepeatedKey, match=f'the key "{path[-1] if "." in path else path}" is given more than once'):
        json.loads(text, object_pairs_hook=unique_object)


def test_unreadable_text_has_no_repeated_key() -> None:
    assert find_repeated_key("{") is None
    assert find_repeated_key("[" * 100_000) is None
    assert find_repeated_key('{"a": ' + "1" * 5_000 + "}") is None
