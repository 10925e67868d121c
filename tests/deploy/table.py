"""The table of what was done, how long it took, and what came of it."""

import sys
import time
from collections.abc import Callable


class Table:
    def __init__(self) -> None:
        self._rows: list[tuple[str, float, str]] = []

    def run(self, name: str, step: Callable[[], str]) -> None:
        """Runs a step, which returns its result in words."""
        print(f"{name} ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        result = step()
        self._rows.append((name, time.monotonic() - began, result))
        print(f"{name}: {result}", file=sys.stderr, flush=True)

    def print(self) -> None:
        """As Markdown."""
        print("| step | seconds | result |\n| --- | --- | --- |")
        for name, seconds, result in self._rows:
            print(f"| {name} | {seconds:.1f} | {result} |")
