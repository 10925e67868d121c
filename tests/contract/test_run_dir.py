from pathlib import Path

from contract.run_dir import RunDir, last_resumable, state


def test_the_checkpoint_to_go_on_from_is_the_furthest_that_has_its_state(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path / "attempt-1"), RunDir(tmp_path / "attempt-2")
    state(first.checkpoint(100)).mkdir(parents=True)
    state(second.checkpoint(200)).mkdir(parents=True)
    second.checkpoint(300).mkdir()
    assert last_resumable([first, second]) == second.checkpoint(200)


def test_runs_without_a_checkpoint_are_begun_anew(tmp_path: Path) -> None:
    assert last_resumable([RunDir(tmp_path)]) is None
