"""The rows of a Parquet file, a few at a time."""

import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

from contract.formatting import format_value, truncate
from dataset.limits import MAX_BATCH_BYTES, PARQUET_BATCH_ROWS
from dataset.refusal import BadFile


def parquet_rows(file: io.FileIO, max_bytes: int | None) -> Iterator[dict[str, Any]]:
    """dataset/reading/arrow_values.py converts the values. Raises BadFile for a damaged file, and for one that is too
    large."""
    # Imported here: it takes a tenth of a second, and no other kind of file needs it.
    import pyarrow
    import pyarrow.parquet

    from dataset.reading.arrow_values import to_values, value_bytes

    size = 0
    try:
        # A thread that reads ahead would abort a process that ends meanwhile, as one does at a bad row.
        parquet = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
        twice = [name for name, count in Counter(parquet.schema_arrow.names).items() if count > 1]
        if twice:
            raise BadFile(f"has more than one column {format_value(truncate(twice[0], 40))}")
        # The size that the file itself states, before anything is unpacked; the true size is counted below.
        groups = (parquet.metadata.row_group(index) for index in range(parquet.num_row_groups))
        if max_bytes is not None and sum(group.total_byte_size for group in groups) > max_bytes:
            raise _too_much(max_bytes)
        for batch in parquet.iter_batches(PARQUET_BATCH_ROWS, use_threads=False):
            bytes_of_batch = sum(map(value_bytes, batch.columns))
            size += bytes_of_batch
            if bytes_of_batch > MAX_BATCH_BYTES:
                raise BadFile(
                    f"has rows too large: {batch.num_rows} of them are more than {MAX_BATCH_BYTES >> 20} MiB; "
                    "split or shorten them"
                )
            if max_bytes is not None and size > max_bytes:
                raise _too_much(max_bytes)
            columns = [to_values(column) for column in batch.columns]
            yield from (dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True))
    except MemoryError:  # Arrow's own is an ArrowException too
        raise
    # For invalid bytes Arrow raises OSError, or whatever Python raises at the resulting value.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise BadFile(f"is not a readable Parquet file: {truncate(str(error), 200)}") from error


def _too_much(max_bytes: int) -> BadFile:
    return BadFile(f"unpacks to more than {max_bytes} bytes, the most that the service takes; split it")
