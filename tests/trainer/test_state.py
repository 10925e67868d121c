import dataclasses
import json
from pathlib import Path

import pytest

from contract.run_dir import seal
from trainer.saving.state import Position, read_position

POSITION = Position(examples=12, window=4, micro_batch=2, course="a", step=3, scaler={"scale": 2.0})


def test_a_position_is_read_as_it_was_sealed(tmp_path: Path) -> None:
    (tmp_path / "position.json").write_text(json.dumps(dataclasses.asdict(POSITION)))
    seal(tmp_path)
    assert read_position(tmp_path) == POSITION
    (tmp_path / "position.json").write_text(json.dumps(dataclasses.asdict(POSITION) | {"step": 4}))
    with pytest.raises(RuntimeError, match=r"position\.json is damaged: go on from an earlier state"):
        read_position(tmp_path)
