from pathlib import Path

import pytest

from contract.failure import FailureReason, InputError
from contract.locate import locate_dataset, locate_model


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return tmp_path / "models"


def test_a_model_is_found_by_its_name(models: Path) -> None:
    assert locate_model("tiny", models, []) == models / "tiny"


def test_a_hub_id_is_left_to_the_trainer(models: Path) -> None:
    assert locate_model("HuggingFaceTB/SmolLM2-135M-Instruct", models, []) is None


def test_a_missing_model_is_told_which_are_there(models: Path) -> None:
    with pytest.raises(InputError, match="models there: tiny") as caught:
        locate_model("huge", models, [])
    assert caught.value.failure.reason == FailureReason.MODEL_NOT_FOUND


def test_weights_that_are_not_safetensors_are_not_loaded(models: Path) -> None:
    (models / "tiny" / "model.safetensors").rename(models / "tiny" / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        locate_model("tiny", models, [])


def test_a_model_with_an_adapter_in_it_is_refused(models: Path) -> None:
    # Where one lies beside the weights, transformers loads it with them, also from a pickle.
    (models / "tiny" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="has an adapter in it") as caught:
        locate_model("tiny", models, [])
    assert caught.value.failure.param == "model"


def test_a_dataset_outside_the_allowed_folders_is_not_found(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (tmp_path / "secret.jsonl").write_text("{}")
    (allowed / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    for path in ("../secret.jsonl", str(tmp_path / "secret.jsonl"), "link.jsonl", "missing.jsonl"):
        with pytest.raises(InputError, match="no file"):
            locate_dataset(path, [allowed])


def test_a_dataset_is_found_relative_to_an_allowed_folder_or_by_its_whole_path(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    assert locate_dataset("rows.jsonl", [tmp_path]) == tmp_path / "rows.jsonl"
    assert locate_dataset(str(tmp_path / "rows.jsonl"), [tmp_path]) == tmp_path / "rows.jsonl"


@pytest.mark.parametrize(
    "model", ["../up", "./tiny2", "a/..", "a/../..", "a..b/c", ".hidden/c", "-x/y", "a/b/c", "a/b\n", "é/b"]
)
def test_what_is_a_path_is_no_hub_id(models: Path, model: str) -> None:
    with pytest.raises(InputError):
        locate_model(model, models, [])


@pytest.mark.parametrize("name", ["x" * 256, "x" * 5000, "a/" * 3000, "loop", "loop/x/y", "nul\0", "file/below/it"])
def test_a_name_that_the_file_system_refuses_is_not_found(models: Path, name: str) -> None:
    (models / "loop").symlink_to(models / "loop")
    (models / "file").touch()
    with pytest.raises(InputError, match="no file"):
        locate_dataset(name, [models])
    with pytest.raises(InputError) as caught:
        locate_model(name, models, [models])
    assert caught.value.failure.reason == FailureReason.MODEL_NOT_FOUND
    assert len(caught.value.failure.message) < 1000


def test_a_model_that_is_a_file_is_not_a_model(models: Path) -> None:
    (models / "file").touch()
    with pytest.raises(InputError, match="has no config"):
        locate_model("file", models, [])
