"""What a trainer leaves on a disk that is too small for it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.events import MetricEvent
from contract.failure import FailureCode
from contract.run_dir import RunDir, latest_state
from tests.trainer.in_process_trainer import train_here
from tests.trainer.trainer_process import Outcome, command

pytestmark = pytest.mark.slow

PRIVATE_MOUNTS = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
"""Before a command that is to mount what it alone sees: as root, or as anyone where the kernel lets them."""
ON_A_SMALL_DISK = """
    folder=$1 size=$2 disk=$3; shift 3
    mount -t tmpfs -o size=$size tmpfs $disk && cp -a $folder/. $disk || exit 99
    "$@"; code=$?
    cp -a $disk/. $folder
    exit $code
"""


@pytest.fixture
def run_on_small_disk(tmp_path: Path) -> Callable[[dict[str, Any], int], Outcome]:
    """Runs the real trainer on a disk of so many bytes. What it has left there is in the outcome's folder."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "tmpfs", str(disk)]
    tried = [subprocess.run([*way, *mounting], capture_output=True, text=True) for way in PRIVATE_MOUNTS]
    if all(trial.returncode for trial in tried):
        pytest.fail(f"a full disk wants one to fill, and none can be mounted: {[trial.stderr for trial in tried]}")
    way = next(way for way, trial in zip(PRIVATE_MOUNTS, tried, strict=True) if trial.returncode == 0)

    def run(recipe: dict[str, Any], size: int) -> Outcome:
        folder = tmp_path / "full"
        folder.mkdir()
        (folder / "recipe.json").write_text(json.dumps(recipe))
        result = subprocess.run(
            [*way, "sh", "-c", ON_A_SMALL_DISK, "sh", str(folder), str(size), str(disk), *command(disk)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Outcome(folder, result.returncode, result.stdout + result.stderr)

    return run


@pytest.mark.exhaustive
def test_full_disk_is_reported_and_cleaned_up(
    recipe: dict[str, Any], run_on_small_disk: Callable[[dict[str, Any], int], Outcome]
) -> None:
    outcome = run_on_small_disk(recipe | {"adapter": {"r": 64}, "schedule": {"max_steps": 1}}, 300_000)
    assert outcome.exit_code == 1, outcome.output
    assert outcome.failure.code == FailureCode.DISK_FULL, outcome.failure.message
    left = sorted(path.name for path in outcome.folder.iterdir())
    assert left == ["error.json", "events.jsonl", "recipe.json"]


@pytest.mark.exhaustive
def test_state_is_kept_when_the_disk_fills(
    recipe: dict[str, Any],
    run_on_small_disk: Callable[[dict[str, Any], int], Outcome],
    tmp_path: Path,
    cache: Path,
) -> None:
    recipe |= {"adapter": {"r": 64}, "checkpointing": {"every_steps": 2}}
    whole = train_here(recipe, tmp_path / "whole", cache)
    # A state is three times as large, for its moments: there is room for two adapters and a state, not for two states.
    adapter = sum(file.stat().st_size for file in RunDir(whole.folder).checkpoint(2).iterdir())
    full = run_on_small_disk(recipe, int(6.5 * adapter))
    assert full.exit_code == 1, full.output
    assert full.failure.code == FailureCode.DISK_FULL, full.failure.message
    assert losses(full) == losses(whole)[:4]

    run = RunDir(full.folder)
    state, damaged = latest_state([run])
    assert (state, damaged) == (run.state(2), [])
    assert list(run.states.iterdir()) == [state]
    rest = train_here(recipe, tmp_path / "rest", cache, resume=state)
    assert losses(rest) == losses(whole)[2:]


def losses(outcome: Outcome) -> list[tuple[int, float]]:
    return [(event.step, event.loss) for event in outcome.events if isinstance(event, MetricEvent)]
