from pathlib import Path

from contract.run_dir import RunDir, last_state


def test_the_state_to_go_on_from_is_the_furthest_of_all_attempts(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path / "attempt-1"), RunDir(tmp_path / "attempt-2")
    for state in (first.state(100), first.state(200), second.state(150)):
        state.mkdir(parents=True)
    assert last_state([first, second]) == first.state(200)


def test_a_state_that_is_still_being_written_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "states" / ".step-000100.partial").mkdir(parents=True)
    assert last_state([RunDir(tmp_path)]) is None


def test_runs_without_a_state_are_begun_anew(tmp_path: Path) -> None:
    assert last_state([RunDir(tmp_path)]) is None
