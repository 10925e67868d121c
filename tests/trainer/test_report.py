from pathlib import Path

import pytest

from contract.events import Evaluation, Log, parse_event
from trainer.report import Report


def test_an_event_is_a_line_for_the_service_and_a_line_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(tmp_path / "events.jsonl", rank=0)
    report(Evaluation, step=3, eval_loss=1.23456789, supervised_tokens=7)
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert isinstance(parse_event(line), Evaluation)
    assert capsys.readouterr().out.endswith("evaluation step=3 eval_loss=1.23457 supervised_tokens=7\n")


def test_other_ranks_tell_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Report(tmp_path / "events.jsonl", rank=1)(Log, level="info", message="hello")
    assert not (tmp_path / "events.jsonl").exists()
    assert capsys.readouterr().out == ""
