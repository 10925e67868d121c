"""What requests cost: the time of each answer, and the CPU time that the API and PostgreSQL take for it.

On a busy machine the CPU time says more. All figures of a run are to be read beside those of GET /health/live.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil


@dataclass(frozen=True)
class Costs:
    api: psutil.Process
    postgres: psutil.Process

    @classmethod
    def of(cls, api: int, database: Path) -> "Costs":
        """`api` is a process id, `database` the folder that finetuned.stack.postgres keeps the data in."""
        server = int((database / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
        return cls(psutil.Process(api), psutil.Process(server))

    def time_requests(self, title: str, count: int, request: Callable[[], httpx.Response]) -> float:
        """Prints what each of `count` requests costs; returns the median in seconds."""
        before, seconds = self._cpu(), []
        for _ in range(count):
            began = time.perf_counter()
            answer = request()
            seconds.append(time.perf_counter() - began)
            answer.raise_for_status()
        api, postgres = ((now - then) / count * 1e3 for now, then in zip(self._cpu(), before, strict=True))
        show(f"{title} ({count} requests; CPU of each: API {api:.1f} ms, PostgreSQL {postgres:.1f})", seconds)
        return statistics.median(seconds)

    def _cpu(self) -> tuple[float, float]:
        return _cpu_of([self.api]), self.postgres_cpu()

    def postgres_cpu(self) -> float:
        """Seconds that the connections that are open have computed."""
        return _cpu_of([self.postgres, *self.postgres.children()])


def _cpu_of(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])  # user and system
    return total


def show(title: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    print(title)
    figures = {
        "median": statistics.median(ordered),
        "least": ordered[0],
        "p95": ordered[max(0, int(len(ordered) * 0.95) - 1)],
        "most": ordered[-1],
    }
    print("    " + ", ".join(f"{name} {figure * 1e3:.1f} ms" for name, figure in figures.items()))


def verdict(what: str, seconds: float, promised: float) -> None:
    print(f"    {'holds' if seconds <= promised else 'does not hold'}: {what} in {promised * 1e3:.0f} ms, median")
