"""The rows of a Parquet file, a few at a time."""

import io
from collections.abc import Iterator
from typing import Any

from contract.quote import cut
from dataset.limits import LARGEST_BATCH, PARQUET_BATCH
from dataset.refusal import BadFile


def parquet_rows(file: io.FileIO, largest: int | None) -> Iterator[dict[str, Any]]:
    """dataset/reading/arrow_values.py has their values. Raises BadFile: no whole Parquet file, or too much of it."""
    # Takes a tenth of a second, and no other kind of file needs it.
    import pyarrow
    import pyarrow.parquet

    from dataset.reading.arrow_values import size_of, values_of

    size = 0
    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        # By its own word, before anything is unpacked; what it keeps quiet is counted below.
        groups = (parquet.metadata.row_group(index) for index in range(parquet.num_row_groups))
        if largest is not None and sum(group.total_byte_size for group in groups) > largest:
            raise _too_much(largest)
        for batch in parquet.iter_batches(PARQUET_BATCH, use_threads=False):
            bytes_of_batch = sum(map(size_of, batch.columns))
            size += bytes_of_batch
            if bytes_of_batch > LARGEST_BATCH:
                raise BadFile(
                    f"has rows too large: {batch.num_rows} of them are more than {LARGEST_BATCH >> 20} MiB; "
                    "split or shorten them"
                )
            if largest is not None and size > largest:
                raise _too_much(largest)
            columns = [values_of(column) for column in batch.columns]
            yield from (dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True))
    except MemoryError:  # Arrow's own is an ArrowException too
        raise
    # Arrow tells of bytes that make no sense by OSError, or by what Python raises at the value that comes of them.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise BadFile(f"is no Parquet file that can be read: {cut(str(error), 200)}") from error


def _too_much(largest: int) -> BadFile:
    return BadFile(f"unpacks to more than {largest} bytes, the most that the service takes; split it")
