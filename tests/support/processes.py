"""What /proc says about processes."""

from collections.abc import Iterator, Mapping
from pathlib import Path


def read_proc(pid: int, file: str) -> bytes:
    """Empty for a process that has ended, or that belongs to somebody else."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


def all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def ancestors(pid: int, parents: Mapping[int, int | None]) -> Iterator[int]:
    """The process, its parent, and so on."""
    current: int | None = pid
    while current:
        yield current
        current = parents.get(current)


def is_gone(pid: int) -> bool:
    """Ended, whether its parent has waited for it or not."""
    stat = read_proc(pid, "stat")
    return not stat or stat.rpartition(b")")[2].split()[0] == b"Z"


def commands_naming(folder: Path) -> list[str]:
    """The commands of the processes that have `folder` in their command line or their environment."""
    commands = {pid: read_proc(pid, "cmdline") for pid in all_pids()}
    return [
        command.replace(b"\0", b" ").decode()
        for pid, command in commands.items()
        if str(folder).encode() in command + read_proc(pid, "environ")
    ]
