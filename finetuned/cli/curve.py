"""A curve in braille: two by four dots in a character. A plotting library would weigh more than the client."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bit of each dot, by column and row."""


def curve(values: Sequence[float], width: int, height: int) -> list[str]:
    """Draws the finite of `values` in `height` lines of at most `width` characters."""
    points = list(_thin(values, 2 * width))
    finite = [value for _, value in points]
    if not finite:
        return []
    low, span = min(finite) / 2, (max(finite) / 2 - min(finite) / 2) or 1.0  # halves: a difference may overflow
    rows = [(column, round((1 - (value / 2 - low) / span) * (4 * height - 1))) for column, value in points]
    cells = [[0x2800] * (1 + rows[-1][0] // 2) for _ in range(height)]
    for column, row in _joined(rows):
        cells[row // 4][column // 2] |= _DOTS[column % 2][row % 4]
    return ["".join(map(chr, line)) for line in cells]


def _thin(values: Sequence[float], columns: int) -> Iterator[tuple[int, float]]:
    """The column and mean of each of at most `columns` groups of neighbours that have a finite value."""
    count = min(columns, len(values))
    for column in range(count):
        group = values[len(values) * column // count : len(values) * (column + 1) // count]
        finite = [value for value in group if math.isfinite(value)]
        if finite and math.isfinite(mean := sum(finite) / len(finite)):
            yield column, mean


def _joined(rows: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The points, and between neighbours the dots of a vertical line."""
    yield rows[0]
    for (before, start), (column, end) in pairwise(rows):
        yield column, end
        if column == before + 1:
            step = 1 if end > start else -1
            yield from ((column, row) for row in range(start + step, end, step))
