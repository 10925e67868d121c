from pathlib import Path

from tests.finetuned.command_line import finetuned


def test_models_are_listed_by_name(tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "models" / "tiny" / "config.json").write_text("{}")
    assert finetuned("models", "--home", str(tmp_path)).stdout == "tiny  2 B\n"


def test_unknown_packaged_model_is_refused_with_alternatives(tmp_path: Path) -> None:
    done = finetuned("models", "add", "gpt-5", "--home", str(tmp_path))
    assert done.returncode == 1
    assert "no model 'gpt-5' to add; known: smollm2-135m-instruct" in done.stderr
