import json

from hypothesis import given
from hypothesis import strategies as st

from contract.formatting import escape_unprintable, format_value, truncate

HOSTILE = st.text(st.sampled_from("a\n\r\t\0\x1b\x7f\x85\x9b\u2028\u202e\u2066\ud800\U000e0041") | st.characters())


@given(HOSTILE)
def test_printable_text_is_what_json_reads_back(text: str) -> None:
    shown = escape_unprintable(text)
    assert shown.isprintable()
    assert json.loads(f'"{shown}"', strict=False) == text if not {'"', "\\"} & set(text) else True
    assert escape_unprintable(shown) == shown


@given(HOSTILE)
def test_kept_characters_stay(text: str) -> None:
    shown = escape_unprintable(text, kept="\n\t")
    assert shown.replace("\n", "").replace("\t", "").isprintable()
    assert (shown.count("\n"), shown.count("\t")) == (text.count("\n"), text.count("\t"))


@given(HOSTILE)
def test_quoted_values_are_printable_and_short(text: str) -> None:
    for shown in (truncate(text), format_value(text), format_value({text: [text]})):
        assert shown.isprintable()
    assert truncate("größe 日本 🙂") == "größe 日本 🙂"
