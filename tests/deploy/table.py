"""The table of what was done, how long it took, and what came of it."""

import sys
import time
import traceback
from collections.abc import Callable


class Table:
    def __init__(self) -> None:
        self.failed: list[str] = []
        self._rows: list[tuple[str, float, str]] = []

    def run(self, name: str, step: Callable[[], str]) -> None:
        """Runs a step, which returns its result in words. A failure is a row too, and the next step follows."""
        print(f"{name} ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            result = step()
        except Exception as error:
            traceback.print_exc()
            self.failed.append(name)
            result = f"FAILED: {type(error).__name__}"
        self._rows.append((name, time.monotonic() - began, result))
        print(f"{name}: {result}", file=sys.stderr, flush=True)

    def print(self) -> None:
        """As Markdown."""
        print("| step | seconds | result |\n| --- | --- | --- |")
        for name, seconds, result in self._rows:
            print(f"| {name} | {seconds:.1f} | {result} |")
