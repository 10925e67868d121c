import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.events import EvaluationEvent, LogEvent, parse_event
from trainer.event_writer import EventWriter


def test_event_is_written_for_machines_and_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = EventWriter(tmp_path / "events.jsonl", rank=0)
    report(EvaluationEvent, step=3, eval_loss=1.23456789, supervised_tokens=7, token_accuracy=0.5)
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert isinstance(parse_event(line), EvaluationEvent)
    said = "evaluation step=3 eval_loss=1.23457 supervised_tokens=7 best=False token_accuracy=0.5\n"
    assert capsys.readouterr().out.endswith(said)


def test_other_ranks_tell_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    EventWriter(tmp_path / "events.jsonl", rank=1)(LogEvent, level="info", message="hello")
    assert not (tmp_path / "events.jsonl").exists()
    assert capsys.readouterr().out == ""


def test_partial_event_is_an_error(tmp_path: Path) -> None:
    program = (
        "from contract.events import LogEvent; from pathlib import Path; from trainer.event_writer import EventWriter;"
        "EventWriter(Path('events.jsonl'), rank=0)(LogEvent, level='info', message='hello')"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    result = subprocess.run(
        ["prlimit", "--fsize=20", sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True
    )
    assert b"File too large" in result.stderr
