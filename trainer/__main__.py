"""Trains the recipe in RUN_DIR/recipe.json: `python -m trainer RUN_DIR`, or through torchrun on several ranks.

Writes RUN_DIR/events.jsonl and RUN_DIR/adapter. On failure it writes RUN_DIR/error.json and exits with 1. On SIGTERM it
saves, reports that in its last event and exits with 0. A folder with an earlier run in it is refused and left
unchanged.
"""

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from contract.events import PhaseEvent
from contract.failure import dataset_errors_as
from contract.locate import Folders, locate_dataset, locate_model
from contract.model.folder import loaded_base
from contract.model.stored_bits import with_stored_bits
from contract.model.target_modules import check_adapter
from contract.recipe import Recipe
from contract.recipe_errors import parse_recipe
from contract.run_dir import RunDir
from trainer.environment import hide_package, lasting_imports, prepare_process
from trainer.event_writer import EventWriter
from trainer.failures import failure_from, print_error, write_failure
from trainer.setup import RunSetup
from trainer.stop import Stop


def main() -> None:
    prepare_process()
    parser = argparse.ArgumentParser(prog="trainer", description="Train the recipe of a run folder.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument(
        "--resume", type=Path, metavar="STATE", help="continue from this state folder of an earlier run"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=_user_cache(),
        metavar="FOLDER",
        help="folder for tokens, compiled layers and checks of packed rows (%(default)s)",
    )
    arguments = parser.parse_args()
    run = RunDir(arguments.run_dir.resolve())
    stop = Stop()
    stop.listen()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        stop.when_launcher_dies()
    # Rank 0 alone checks: the other ranks might find files that it has already written.
    if _rank() == 0:
        check_run_dir(run)
    report = None
    try:
        recipe = resolve(parse_recipe(run.recipe.read_bytes()))
        report = EventWriter(run.events, _rank())
        run_training(RunSetup(recipe, run, report, stop, arguments.cache, arguments.resume))
    except Exception as error:
        # Before the log line, since the log may be on the full disk.
        step = report.step if report else None
        write_failure(failure_from(error, step, resumed=arguments.resume is not None), run.error)
        print_error(error)
        _exit(1)
    _exit(0)


def check_run_dir(run: RunDir) -> None:
    """Exits with a message if the recipe is missing, or if an earlier run's files would be mixed with this one's."""
    if not run.recipe.is_file():
        sys.exit(f"trainer: no {run.recipe.name} in {run.path}")
    for existing in (run.adapter, run.checkpoints, run.events, run.error):
        if existing.exists():
            sys.exit(
                f"trainer: {run.path} has the {existing.name} of an earlier run; give each run its own folder, with "
                f"a copy of {run.recipe.name} in it"
            )


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths. Relative paths are looked up in the working folder, models also in its `models`
    folder. Absolute paths may be anywhere.

    Raises InputError for missing files, before anything slow starts.
    """
    dataset = locate_dataset(recipe.dataset.path, _folders(recipe.dataset.path))
    evaluation = recipe.evaluation
    if evaluation.dataset is not None:
        given = evaluation.dataset
        with dataset_errors_as("evaluation.dataset"):
            held_out = locate_dataset(given.path, _folders(given.path))
        evaluation = evaluation.model_copy(update={"dataset": given.model_copy(update={"path": str(held_out)})})
    folder = locate_model(recipe.model, _folders(recipe.model))
    if folder is None:
        model = recipe.model
    else:
        model = str(folder)
        base = loaded_base(folder)
        recipe = with_stored_bits(recipe, base.trained_bits)
        if recipe.adapter.start_from is None:
            check_adapter(recipe.adapter, base.shapes, base.kind)
        # huggingface_hub reads this when it is imported, so nothing about a local model is requested from the hub.
        os.environ["HF_HUB_OFFLINE"] = "1"
    return recipe.model_copy(
        update={
            "model": model,
            "dataset": recipe.dataset.model_copy(update={"path": str(dataset)}),
            "evaluation": evaluation,
        }
    )


def _folders(path: str) -> Folders:
    return Folders(Path.cwd() / "models", [Path("/") if Path(path).is_absolute() else Path.cwd()])


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "finetuned", "tokens")


def run_training(setup: RunSetup) -> None:
    began = time.perf_counter()
    recipe = setup.recipe
    if recipe.base_bits is None and recipe.optimizer.type != "adamw_8bit" and Path(recipe.model).is_dir():
        # PEFT imports bitsandbytes if it is installed, which takes more than a second. A hub model may be stored in 4
        # bits.
        hide_package("bitsandbytes")
    # Imported here, so that a bad recipe fails at once and the import time is reported.
    with lasting_imports():
        from trainer.train import train

    setup.report(PhaseEvent, name="imports", seconds=time.perf_counter() - began)
    train(setup)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _exit(code: int) -> NoReturn:
    """Ends the process at once.

    It does not wait for threads that may still load a model or a dataset. It does not destroy the process group either:
    gloo's destructor runs with Python's lock held and joins a thread that may wait for that lock (torch 2.13), so a
    finished run might hang for ever.
    """
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
