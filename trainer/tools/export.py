"""Makes an export: `python -m trainer.tools.export RUN_DIR`, on the CPU.

RUN_DIR/recipe.json is the recipe that the adapter was trained with; its base and its `adapter.start_from` are folders.
RUN_DIR/export.json is a contract.export.ExportSpec. The command writes the folder RUN_DIR/exported, or on failure
RUN_DIR/error.json, and then exits with 1.
"""

import argparse
import os
import sys
from pathlib import Path

from contract.export import ExportSpec
from contract.recipe import Recipe
from contract.recipe_errors import parse_recipe
from contract.run_dir import RunDir
from trainer.environment import hide_package, lasting_imports, prepare_process
from trainer.failures import failure_from, print_error, write_failure


def main() -> None:
    prepare_process()
    parser = argparse.ArgumentParser(prog="trainer.tools.export", description="Export an adapter in another format.")
    parser.add_argument("run_dir", type=Path)
    run = RunDir(parser.parse_args().run_dir.resolve())
    try:
        recipe = parse_recipe(run.recipe.read_bytes())
        spec = ExportSpec.model_validate_json(run.export_spec.read_bytes())
        if Path(recipe.model).is_dir():
            # huggingface_hub reads this when it is imported.
            os.environ["HF_HUB_OFFLINE"] = "1"
        if spec.init != "loftq":
            # PEFT imports it if it is installed, and nothing else here is quantised.
            hide_package("bitsandbytes")
        export(recipe, spec, run.exported)
    except Exception as error:
        write_failure(failure_from(error), run.error)
        print_error(error)
        sys.exit(1)


def export(recipe: Recipe, spec: ExportSpec, folder: Path) -> None:
    """Raises InputError for a base or a tokenizer that cannot be loaded, for an adapter that does not fit, and for one
    that has no such format."""
    match spec.format:
        case "merged":
            with lasting_imports():
                from trainer.tools.merge import merge

            merge(recipe, folder, spec.shard_size, spec.init)
        case "portable":
            with lasting_imports():
                from trainer.tools.portable import save_portable

            save_portable(recipe, folder, spec)
        case "gguf":
            with lasting_imports():
                from trainer.tools.gguf_adapter import save_gguf

            save_gguf(recipe, folder, spec)
        case "merged-gguf-f16" | "merged-gguf-q8_0":
            with lasting_imports():
                from trainer.tools.gguf_model import save_merged_gguf

            save_merged_gguf(recipe, folder, spec)


if __name__ == "__main__":
    main()
