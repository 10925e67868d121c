"""Limits on how much of a file is in memory at once."""

MAX_ROW_BYTES = 64 << 20
"""Maximum bytes of one line, or of one CSV record."""
MAX_ARRAY_BYTES = 256 << 20
"""Maximum bytes of a file that is one JSON array. It is held whole and takes up to five times as much memory."""
PARQUET_BATCH_ROWS = 64
"""Rows of a Parquet file that are decoded together."""
MAX_BATCH_BYTES = 256 << 20
"""Maximum bytes of such a batch."""
TEXT_PIECE_BYTES = 2000
"""Bytes of a piece of a plain text file. No tokenizer makes more tokens than bytes, so the default max_length cuts no
piece."""
MAX_XZ_MEMORY = 128 << 20
"""Maximum memory for unpacking an xz file; one of `xz -9` takes 65 MiB."""
