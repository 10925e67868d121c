"""How much of a file is held at once."""

MAX_ROW_BYTES = 64 << 20
"""Bytes of one line, or of one record of a CSV file."""
MAX_ARRAY_BYTES = 256 << 20
"""Bytes of a file that is one JSON array: it is held whole, in up to five times as much memory."""
PARQUET_BATCH_ROWS = 64
"""Rows of a Parquet file that are decoded together."""
MAX_BATCH_BYTES = 256 << 20
"""Bytes that these may be."""
TEXT_PIECE_BYTES = 2000
"""Bytes of a piece of a plain text file: no tokenizer makes more tokens of it than that, so the default max_length cuts
none."""
MAX_XZ_MEMORY = 128 << 20
"""Bytes that an xz file may take to be unpacked: one of `xz -9` takes 65 MiB."""
