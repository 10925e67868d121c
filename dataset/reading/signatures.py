"""Files that are no data set, or one in a form that is not read: each is known by its first bytes."""

import re
from collections.abc import Mapping

from contract.quote import quote
from dataset.refusal import BadFile

LONGEST = 512
"""First bytes of a file that tell what it is."""

_ARCHIVE = "unpack it, and upload the file of rows that is in it"
_ROWS = "write its rows as JSON Lines, CSV or Parquet"
_ARROW = (
    "is an Arrow file (IPC); write it as Parquet, as datasets.Dataset.from_file(FILE).to_parquet(NEW) does, or "
    "pyarrow.feather.read_table"
)
_SIGNATURES: Mapping[tuple[int, bytes], str] = {
    (0, b"PK\x03\x04"): f"is a zip archive; {_ARCHIVE}",
    (0, b"PK\x05\x06"): "is an empty zip archive; upload the file of rows itself",
    (0, b"7z\xbc\xaf\x27\x1c"): f"is a 7z archive; {_ARCHIVE}",
    (0, b"Rar!\x1a\x07"): f"is a rar archive; {_ARCHIVE}",
    (257, b"ustar"): f"is a tar archive; {_ARCHIVE}",
    (0, b"\x1f\x9d"): "is packed by compress; pack it with gzip or zstd, or not at all",
    (0, b"\x04\x22\x4d\x18"): "is packed by lz4; pack it with gzip or zstd, or not at all",
    (0, b"\xff\x06\x00\x00sNaPpY"): "is packed by snappy; pack it with gzip or zstd, or not at all",
    (0, b"LZIP"): "is packed by lzip; pack it with xz or zstd, or not at all",
    (0, b"]\x00\x00"): "is packed by lzma; pack it with xz or zstd, or not at all",
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"): "is a file of Microsoft Office, such as .xls; save it as CSV (UTF-8)",
    (0, b"ARROW1"): _ARROW,
    (0, b"FEA1"): _ARROW,
    (0, b"\xff\xff\xff\xff"): _ARROW,
    (0, b"PARE"): "is an encrypted Parquet file; write it without encryption",
    (0, b"ORC"): "is an ORC file; write it as Parquet, as pyarrow.orc.read_table and pyarrow.parquet.write_table do",
    (0, b"Obj\x01"): f"is an Avro file; {_ROWS}",
    (0, b"SQLite format 3\x00"): (
        "is an SQLite database; write a table of it as CSV, as sqlite3 -header -csv FILE 'SELECT ...' does"
    ),
    (8, b"DUCK"): "is a DuckDB database; write a table of it as Parquet, as COPY ... TO 'rows.parquet' does",
    (0, b"\x89HDF\r\n\x1a\n"): f"is an HDF5 file; {_ROWS}",
    (0, b"\x93NUMPY"): f"is a NumPy array; {_ROWS}",
    (0, b"GGUF"): "is a GGUF model; upload a file of examples",
    (0, b"%PDF-"): "is a PDF; save its text as .txt",
    (0, rb"{\rtf"): "is an RTF document; save its text as .txt",
    (0, b"\x89PNG"): "is an image; upload a file of examples",
    (0, b"\xff\xd8\xff"): "is an image; upload a file of examples",
    (0, b"version https://git-lfs"): "is a pointer of Git LFS, in place of the file; fetch the file with git lfs pull",
}
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_WEB_PAGE = re.compile(rb"\s*<(!doctype html|html)\b", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml\b", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")


def check_readable(start: bytes) -> None:
    """Raises BadFile, which says what the file is and what to do, for one whose first bytes tell that it is no text."""
    start = start.removeprefix(b"\xef\xbb\xbf")
    if start.startswith(b"PK\x03\x04") and re.search(rb"\[Content_Types\]\.xml|_rels/|docProps|xl/", start):
        raise BadFile("is a document of Office, such as .xlsx; save a sheet of it as CSV (UTF-8)")
    for (offset, signature), problem in _SIGNATURES.items():
        if start.startswith(signature, offset):
            raise BadFile(problem)
    if _PICKLE.match(start):
        raise BadFile(f"is a Python pickle, which runs code when it is loaded and so never is; {_ROWS}")
    if _WEB_PAGE.match(start):
        raise BadFile("is a web page (HTML), in place of the file; download the file itself")
    if _XML.match(start):
        raise BadFile(f"is XML; {_ROWS}")
    if _CONTROL.match(start[:4].lstrip(b"\t\r\n ")):
        raise BadFile(f"is binary, and of no kind that is read: it begins with {quote(start[:8].hex(' '))}; {_ROWS}")
