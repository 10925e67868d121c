"""The rows of a Parquet file, a few at a time."""

import io
from collections.abc import Iterator
from typing import Any

from contract.quote import cut
from dataset.limits import LARGEST_BATCH, PARQUET_BATCH
from dataset.refusal import BadFile


def parquet_rows(file: io.FileIO, largest: int | None) -> Iterator[dict[str, Any]]:
    """Columns of dates and times are left out. Raises BadFile: no whole Parquet file, or too much of it."""
    # Takes a tenth of a second, and no other kind of file needs it.
    import pyarrow
    import pyarrow.parquet

    size = 0
    try:
        parquet = pyarrow.parquet.ParquetFile(file)
        # By its own word, before anything is unpacked; what it keeps quiet is counted below.
        groups = (parquet.metadata.row_group(index) for index in range(parquet.num_row_groups))
        if largest is not None and sum(group.total_byte_size for group in groups) > largest:
            raise _too_much(largest)
        # Their nanoseconds have no Python type, and none is ever an example's.
        columns = [column.name for column in parquet.schema_arrow if not pyarrow.types.is_temporal(column.type)]
        for batch in parquet.iter_batches(PARQUET_BATCH, columns=columns, use_threads=False):
            size += batch.nbytes
            if batch.nbytes > LARGEST_BATCH:
                raise BadFile(
                    f"has rows too large: {batch.num_rows} of them are more than {LARGEST_BATCH >> 20} MiB; "
                    "split or shorten them"
                )
            if largest is not None and size > largest:
                raise _too_much(largest)
            yield from batch.to_pylist()
    # Arrow tells of bytes that make no sense by OSError, or by what Python raises at the value that comes of them.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise BadFile(f"is no Parquet file that can be read: {cut(str(error), 200)}") from error


def _too_much(largest: int) -> BadFile:
    return BadFile(f"unpacks to more than {largest} bytes, the most that the service takes; split it")
