from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.events import LogEvent
from worker.attempt.tail import Tail


def line(number: int) -> str:
    return LogEvent(time=0, level="info", message=f"Zeile {number} \N{SNOWMAN}").model_dump_json() + "\n"


def numbers(tail: Tail) -> list[int]:
    return [int(event.message.split()[1]) for event in tail.read() if isinstance(event, LogEvent)]


def test_missing_file_has_no_events(tmp_path: Path) -> None:
    assert Tail(tmp_path / "events.jsonl").read() == []


def test_half_written_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    path.write_text(line(1) + line(2)[:10])
    assert numbers(tail) == [1]
    path.write_text(line(1) + line(2))
    assert numbers(tail) == [2]


def test_huge_line_does_not_stop_the_tail(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    long = LogEvent(time=0, level="info", message="Zeile 1 " + "x" * 5_000_000).model_dump_json() + "\n"
    path.write_text(long + line(2))
    tail = Tail(path)
    assert numbers(tail) + numbers(tail) == [1, 2]


def test_line_that_is_no_event_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(line(1) + '{"type": "unheard of"}\nnot json\n' + line(2))
    assert numbers(Tail(path)) == [1, 2]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(1, 200), max_size=30))
def test_every_event_is_read_once_despite_cuts(tmp_path: Path, cuts: list[int]) -> None:
    path = tmp_path / "events.jsonl"
    path.unlink(missing_ok=True)
    left = "".join(map(line, range(20))).encode()
    tail, read = Tail(path), []
    for cut in [*cuts, len(left)]:
        with path.open("ab") as file:
            file.write(left[:cut])
        left = left[cut:]
        read += numbers(tail)
    assert read == list(range(20))
