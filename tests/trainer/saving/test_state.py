import json
from dataclasses import replace
from pathlib import Path

import pytest

from contract.failure import InputError
from contract.method import Method
from contract.recipe import Recipe
from contract.run_dir import write_checksums
from dataset.document import Document
from trainer.data.examples import TrainingData
from trainer.data.tokens import flatten
from trainer.saving.state import TrainerState, check_same_run, read_state, run_fingerprint

POSITION = TrainerState(
    examples=12, effective_batch_size=4, micro_batch=2, fingerprint="a", step=3, scaler={"scale": 2.0}
)
WRITTEN = {"examples": 12, "window": 4, "micro_batch": 2, "fingerprint": "a", "step": 3, "scaler": {"scale": 2.0}}


def test_state_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    earlier = {name: value for name, value in WRITTEN.items() if name != "fingerprint"} | {"course": "b"}
    (tmp_path / "position.json").write_text(json.dumps(earlier))
    write_checksums(tmp_path)
    read = read_state(tmp_path)
    assert read == replace(POSITION, fingerprint=None)
    check_same_run(read, POSITION)
    with pytest.raises(InputError, match="made with other examples"):
        check_same_run(replace(POSITION, fingerprint="c"), POSITION)


def test_fingerprint_is_that_of_every_release() -> None:
    """A run that another release began goes on."""
    tokens = flatten([[Document([1, 2, 3], [False, True, True])], [Document([4, 5], [False, True])]])
    assert tokens.digest == "900f1d4395b56e1e5d36d320058193e7455995216f3e0a482c0fa2ff3694610d"
    recipe = Recipe.model_validate({"model": "m", "dataset": "d", "schedule": {"epochs": 2}})
    data = TrainingData([], [], 8, tokens.digest, 0, 0, [], [])  # type: ignore[arg-type]
    assert run_fingerprint(recipe, data) == "14f5b6b92cc8311100ddce834607b5832c1700858b1c4939d25c0b30bdc202ea"
    pairs = recipe.model_copy(update={"method": Method(type="dpo")})
    assert run_fingerprint(pairs, data) == "d34a99926e7de11f9a54b6063c914bf63f128ef3385f6af3977a5d7bd3ae1527"


def test_position_is_read_as_it_was_sealed(tmp_path: Path) -> None:
    (tmp_path / "position.json").write_text(json.dumps(WRITTEN))
    write_checksums(tmp_path)
    assert read_state(tmp_path) == POSITION
    (tmp_path / "position.json").write_text(json.dumps(WRITTEN | {"step": 4}))
    with pytest.raises(RuntimeError, match=r"position\.json is damaged: go on from an earlier state"):
        read_state(tmp_path)
