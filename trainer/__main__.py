"""Trains what RUN_DIR/recipe.json asks for: `torchrun -m trainer RUN_DIR`; `python -m trainer` does for one process.

Writes RUN_DIR/events.jsonl and RUN_DIR/adapter. When it fails it writes RUN_DIR/error.json and exits with 1; SIGTERM
makes it save, say so in its last event, and exit with 0.
"""

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

from contract.base_model import check_target_modules, weight_shapes
from contract.events import Phase
from contract.locate import locate_dataset, locate_model
from contract.recipe import Recipe
from contract.recipe_errors import read_recipe
from contract.run_dir import RunDir
from trainer.failures import failure_of, write_failure
from trainer.report import Report
from trainer.stop import Stop


def main() -> None:
    parser = argparse.ArgumentParser(prog="trainer", description="Train the recipe of a run folder.")
    parser.add_argument("run_dir", type=Path)
    run = RunDir(parser.parse_args().run_dir.resolve())
    stop = Stop()
    stop.listen()
    try:
        if run.adapter.exists():
            raise FileExistsError(f"{run.adapter} is there already; give each run a folder of its own")
        recipe = resolve(read_recipe(run.recipe.read_bytes()))
        run_training(recipe, run, stop)
    except Exception as error:
        traceback.print_exc()
        write_failure(failure_of(error), run.error)
        sys.exit(1)


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths; relative ones are looked for in the working folder, models also in its `models`.

    Raises InputError for what is missing, before anything slow is done.
    """
    here = [Path.cwd(), Path("/")]
    dataset = locate_dataset(recipe.dataset.path, here)
    folder = locate_model(recipe.model, Path.cwd() / "models", here)
    if folder is None:
        model = recipe.model
    else:
        model = str(folder)
        if recipe.adapter.target_modules != "all-linear":
            check_target_modules(recipe.adapter.target_modules, weight_shapes(folder))
        # Read by huggingface_hub when it is imported: nothing about a local model is asked of the hub.
        os.environ["HF_HUB_OFFLINE"] = "1"
    return recipe.model_copy(
        update={"model": model, "dataset": recipe.dataset.model_copy(update={"path": str(dataset)})}
    )


def run_training(recipe: Recipe, run: RunDir, stop: Stop) -> None:
    report = Report(run.events, rank=int(os.environ.get("RANK", "0")))
    began = time.perf_counter()
    # Here, so that a bad recipe is told at once and the seconds that this takes are known.
    from trainer.train import start_accelerator, train

    report(Phase, name="imports", seconds=time.perf_counter() - began)
    accelerator = start_accelerator()
    train(recipe, run, accelerator, report, stop)
    accelerator.end_training()


if __name__ == "__main__":
    main()
