"""Reads a multipart/form-data body as it arrives: one file, passed on in pieces, and a few small fields.

Starlette's own form parser would first write the file, of any size, to a temporary one.
"""

from collections.abc import Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.errors import BadForm, InvalidParameter

MOST_FIELDS = 32
LONGEST_FIELD = 64 << 10  # bytes
LONGEST_NAME = 255  # characters of a file's name
_FILE = "file"


class FormReader:
    """Raises BadForm, InvalidParameter for any other form."""

    def __init__(self, content_type: str, write_file: Callable[[memoryview], None]) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        """None until the file begins."""
        self._write_file = write_file
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidParameter("Content-Type", content_type, "send multipart/form-data with a boundary, or JSON")
        self._headers: dict[str, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._field: tuple[str, bytearray] | None = None
        self._ended = False
        try:
            self._parser = self._make_parser(boundary)
        except FormParserError as error:
            raise InvalidParameter("Content-Type", content_type, f"send a shorter boundary: {error}") from error

    def _make_parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_part,
                "on_part_data": self._take,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BadForm(f"it is no multipart/form-data: {error}") from error

    def finish(self) -> str:
        """The file's name, once the body has ended."""
        if not self._ended:
            raise BadForm("it ends before the form does; send it again")
        if self.filename is None:
            raise InvalidParameter(_FILE, ", ".join(self.fields), f"the form has no file of the name {_FILE}")
        return self.filename

    def _end_header(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _begin_part(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition"))
        name = options.get(b"name", b"").decode(errors="replace")
        if name == _FILE:
            if self.filename is not None:
                raise InvalidParameter(_FILE, name, "the form has more than one; send one at a time")
            self.filename = _base_name(options.get(b"filename", b"").decode(errors="replace"))
        elif len(self.fields) == MOST_FIELDS or name in self.fields:
            raise InvalidParameter(name, name, f"give each field once, and {MOST_FIELDS} at most")
        else:
            self._field = (name, bytearray())

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._write_file(memoryview(data)[start:end])
            return
        name, value = self._field
        value += data[start:end]
        if len(value) > LONGEST_FIELD:
            raise InvalidParameter(name, value[:80].decode(errors="replace"), f"{LONGEST_FIELD} bytes at most")

    def _end_part(self) -> None:
        if self._field is not None:
            name, value = self._field
            self.fields[name] = value.decode(errors="replace")
            self._field = None

    def _end(self) -> None:
        self._ended = True


def _base_name(given: str) -> str:
    """The name to show: without folders and control characters. It never names a file on the server."""
    last = given.replace("\\", "/").rpartition("/")[2]
    kept = "".join(letter for letter in last if letter.isprintable())
    return kept[-LONGEST_NAME:].strip() or "file"
