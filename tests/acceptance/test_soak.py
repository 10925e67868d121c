"""A small soak: whatever is killed at random, each job comes to the end that was ordered, once, and leaves nothing."""

from pathlib import Path

import pytest

from benchmarks.soak.run import soak

JOBS = 25


@pytest.mark.exhaustive  # .ci/run often runs one like it: benchmarks.soak --short
@pytest.mark.timeout(900)  # as long as it gives itself
def test_ledger_of_a_soak_is_whole(servers_folder: Path) -> None:
    folder = servers_folder / "soak"
    folder.mkdir()
    ledger = soak(folder, jobs=JOBS, workers=3, seed=1)
    reported = str(ledger)
    assert ledger.is_whole, reported
    assert ledger.submitted == JOBS == ledger.ends.total(), reported
    assert {"succeeded", "failed"} <= set(ledger.ends), reported
    assert len(ledger.strikes) == 13, reported
    assert max(ledger.attempts) > 1, reported
