"""A plain text file: one document, in pieces that fit into an example."""

import io
import re
from collections.abc import Iterator

from dataset.example import PlainText
from dataset.fields import as_text
from dataset.limits import TEXT_PIECE
from dataset.reading.encoding import decoded
from dataset.refusal import BadRow

_ENDS = [re.compile(each) for each in (r"\n\s*\n", r"\n", r"[.!?]\s|[。！？]", r"\s")]
"""Where a text is best parted: after a paragraph, a line, a sentence, a word."""


def text_rows(file: io.BufferedReader) -> Iterator[PlainText | BadRow]:
    """Its pieces; one after another they are the file, with line breaks as "\\n" and without blank pieces. One that is
    no text is a BadRow in its place. Raises BadFile."""
    last = ""
    for piece in filter(str.strip, _pieces(file)):
        if last:
            yield _row(last, ends=False)
        last = piece
    if last:
        yield _row(last, ends=True)


def _pieces(file: io.BufferedReader) -> Iterator[str]:
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    rest = ""
    for text in decoded(file, "utf-8"):
        rest += newlines.decode(text)
        begin = 0
        while len(rest) - begin > TEXT_PIECE:
            end = _end_of_piece(rest, begin)
            yield rest[begin:end]
            begin = end
        rest = rest[begin:]
    rest += newlines.decode("", final=True)
    while rest:
        end = _end_of_piece(rest, 0)
        yield rest[:end]
        rest = rest[end:]


def _end_of_piece(text: str, begin: int) -> int:
    """At most TEXT_PIECE bytes of UTF-8 after `begin`, and half of them at least where more of the text follows."""
    most = begin + len(text[begin : begin + TEXT_PIECE].encode()[:TEXT_PIECE].decode(errors="ignore"))
    if most == len(text):
        return most
    least = begin + (most - begin) // 2
    for end in _ENDS:
        if found := list(end.finditer(text, least, most)):
            return found[-1].end()
    return most


def _row(text: str, ends: bool) -> PlainText | BadRow:
    try:
        return PlainText(as_text("text", text), ends=ends)
    except BadRow as fault:
        return fault
