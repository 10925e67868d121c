"""How much of a file is held at once."""

LONGEST_ROW = 64 << 20
"""Bytes of one line, or of one record of a CSV file."""
LARGEST_ARRAY = 256 << 20
"""Bytes of a file that is one JSON array: it is held whole, in up to five times as much memory."""
PARQUET_BATCH = 64
"""Rows of a Parquet file that are decoded together."""
LARGEST_BATCH = 256 << 20
"""Bytes that these may be."""
TEXT_PIECE = 2000
"""Bytes of a piece of a plain text file: no tokenizer makes more tokens of it than that, so the default max_length cuts
none."""
XZ_MEMORY = 128 << 20
"""Bytes that an xz file may take to be unpacked: one of `xz -9` takes 65 MiB."""
