import json
from pathlib import Path

import pytest

from contract.run_dir import write_checksums
from trainer.saving.state import TrainerState, read_state

POSITION = TrainerState(
    examples=12, effective_batch_size=4, micro_batch=2, fingerprint="a", step=3, scaler={"scale": 2.0}
)
WRITTEN = {"examples": 12, "window": 4, "micro_batch": 2, "course": "a", "step": 3, "scaler": {"scale": 2.0}}


def test_position_is_read_as_it_was_sealed(tmp_path: Path) -> None:
    (tmp_path / "position.json").write_text(json.dumps(WRITTEN))
    write_checksums(tmp_path)
    assert read_state(tmp_path) == POSITION
    (tmp_path / "position.json").write_text(json.dumps(WRITTEN | {"step": 4}))
    with pytest.raises(RuntimeError, match=r"position\.json is damaged: go on from an earlier state"):
        read_state(tmp_path)
