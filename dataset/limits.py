"""How much of a file is held at once."""

LONGEST_ROW = 64 << 20
"""Bytes of one line, or of one record of a CSV file."""
LARGEST_ARRAY = 256 << 20
"""Bytes of a file that is one JSON array: it is held whole, in up to five times as much memory."""
PARQUET_BATCH = 64
"""Rows of a Parquet file that are decoded together."""
LARGEST_BATCH = 256 << 20
"""Bytes that these may be."""
