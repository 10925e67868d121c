import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.run_dir import RunDir, is_complete, latest_state, partial_path, prune_states, write_checksums


def save(state: Path) -> Path:
    state.mkdir(parents=True)
    (state / "weights").write_bytes(b"weights " * 1000)
    (state / "position").write_text("1")
    write_checksums(state)
    return state


def damage(state: Path) -> Path:
    (state / "weights").write_bytes(b"weights")
    return state


def test_furthest_state_of_all_attempts_is_chosen(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path / "attempt-1"), RunDir(tmp_path / "attempt-2")
    for state in (first.state(100), first.state(200), second.state(150)):
        save(state)
    assert latest_state([first, second]) == (first.state(200), [])


def test_steps_are_compared_as_numbers(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step in (999_999, 1_000_000):
        save(run.state(step))
    assert latest_state([run]) == (run.state(1_000_000), [])


def test_later_attempt_wins_between_equal_steps(tmp_path: Path) -> None:
    runs = [RunDir(tmp_path / f"attempt-{n}") for n in (1, 2, 3)]
    for run in runs[:2]:
        save(run.state(100))
    assert latest_state(runs) == (runs[1].state(100), [])


def cut(state: Path) -> None:
    damage(state)


def flip(state: Path) -> None:
    (state / "weights").write_bytes(b"Weights " + b"weights " * 999)


def lose(state: Path) -> None:
    (state / "position").unlink()


def unseal(state: Path) -> None:
    (state / "digests.json").unlink()


def tear_the_seal(state: Path) -> None:
    content = (state / "digests.json").read_bytes()
    (state / "digests.json").write_bytes(content[: len(content) // 2])


def empty(state: Path) -> None:
    for file in state.iterdir():
        file.write_bytes(b"")


@pytest.mark.parametrize("tear", [cut, flip, lose, unseal, tear_the_seal, empty])
def test_damaged_state_is_skipped_and_reported(tmp_path: Path, tear: Callable[[Path], None]) -> None:
    first, second = RunDir(tmp_path / "attempt-1"), RunDir(tmp_path / "attempt-2")
    for state in (first.state(50), first.state(100), second.state(150)):
        assert is_complete(save(state))
    tear(second.state(150))
    assert not is_complete(second.state(150))
    assert latest_state([first, second]) == (first.state(100), [second.state(150)])


def test_all_damaged_states_mean_a_fresh_start(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    damaged = [damage(save(run.state(step))) for step in (200, 100)]
    assert latest_state([run]) == (None, damaged)


def test_partial_state_is_not_a_state(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    save(partial_path(run.state(100)))
    assert latest_state([run]) == (None, [])


def test_runs_without_a_state_are_begun_anew(tmp_path: Path) -> None:
    assert latest_state([RunDir(tmp_path)]) == (None, [])


def test_furthest_states_are_kept_and_debris_removed(tmp_path: Path) -> None:
    first, second = RunDir(tmp_path / "attempt-1"), RunDir(tmp_path / "attempt-2")
    for state in (first.state(50), first.state(100), first.state(150), second.state(200), second.state(300)):
        save(state)
    damage(second.state(300))
    for left in (first.adapter, first.checkpoint(100), second.state(350)):
        partial_path(left).mkdir(parents=True)
    (first.states / ".step-000020.gone").mkdir()
    saved = [first.checkpoint(50), first.adapter]
    for folder in saved:
        folder.mkdir(exist_ok=True)
    prune_states([first, second], keep=2)
    assert sorted(tmp_path.glob("attempt-*/states/*")) == [first.state(150), second.state(200)]
    assert sorted(tmp_path.glob("attempt-*/checkpoints/*")) == [first.checkpoint(50)]
    assert not list(tmp_path.rglob(".*"))
    assert all(folder.is_dir() for folder in saved)


def test_concurrent_removal_of_states_is_tolerated(tmp_path: Path) -> None:
    """As the trainer of an attempt that was given up may."""
    run = RunDir(tmp_path)
    for step in (100, 200, 300):
        save(run.state(step))

    def remove_the_furthest() -> None:
        shutil.rmtree(run.state(300), ignore_errors=True)

    assert latest_state([run], remove_the_furthest) == (run.state(200), [run.state(300)])

    def remove_the_next() -> None:
        shutil.rmtree(run.state(100), ignore_errors=True)

    prune_states([run], 1, remove_the_next)
    assert list(run.states.iterdir()) == [run.state(200)]


def test_all_states_are_removed_on_request(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    save(run.state(100))
    damage(save(run.state(200)))
    prune_states([run, RunDir(tmp_path / "never-begun")], keep=0)
    assert list(run.states.iterdir()) == []
