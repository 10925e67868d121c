"""An exporter that exports nothing: a real process, `python fake_merger.py RUN_DIR`, that does what its recipe's name
says: "slow" takes for ever in the first attempt, "unmergeable" fails."""

import os
import sys
import time
from pathlib import Path

from contract.export import ExportSpec
from contract.failure import Failure, FailureCode
from contract.recipe import Recipe
from contract.run_dir import RunDir


def main() -> None:
    run = RunDir(Path(sys.argv[1]))
    recipe = Recipe.model_validate_json(run.recipe.read_bytes())
    words = dict(word.partition("=")[::2] for word in (recipe.name or "").split())
    (run.path / "merger.pid").write_text(str(os.getpid()))
    if "slow" in words and run.path.name.endswith("-1"):
        time.sleep(1000)
    if "unmergeable" in words:
        failure = Failure(code=FailureCode.MODEL_UNSUPPORTED, message="as the recipe's name asks", param="model")
        run.error.write_text(failure.model_dump_json())
        sys.exit(1)
    run.exported.mkdir()
    if ExportSpec.model_validate_json(run.export_spec.read_bytes()).format == "portable":
        (run.exported / "adapter_config.json").write_text('{"r": 64}')
    (run.exported / "config.json").write_text("{}")
    (run.exported / "seen.txt").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))


if __name__ == "__main__":
    main()
