"""Trains what RUN_DIR/recipe.json asks for: `python -m trainer RUN_DIR`, or by torchrun as several ranks.

Writes RUN_DIR/events.jsonl and RUN_DIR/adapter. When it fails it writes RUN_DIR/error.json and exits with 1; SIGTERM
makes it save, say so in its last event, and exit with 0. A folder with an earlier run in it is refused and left as it
is.
"""

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from contract.events import Phase
from contract.failure import told_of
from contract.locate import Folders, locate_dataset, locate_model
from contract.model.folder import loaded_base
from contract.model.target_modules import check_adapter
from contract.recipe import Recipe
from contract.recipe_errors import read_recipe
from contract.run_dir import RunDir
from trainer.failures import failure_of, print_error, write_failure
from trainer.report import Report
from trainer.stop import Stop


def main() -> None:
    parser = argparse.ArgumentParser(prog="trainer", description="Train the recipe of a run folder.")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--resume", type=Path, metavar="STATE", help="go on from this folder of another run's states")
    parser.add_argument(
        "--cache",
        type=Path,
        default=_user_cache(),
        metavar="FOLDER",
        help="keep tokens and compiled layers here (%(default)s)",
    )
    arguments = parser.parse_args()
    run = RunDir(arguments.run_dir.resolve())
    stop = Stop()
    stop.listen()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        stop.when_launcher_dies()
    # The other ranks may find what rank 0 has begun.
    if _rank() == 0:
        check_run_dir(run)
    report = None
    try:
        recipe = resolve(read_recipe(run.recipe.read_bytes()))
        report = Report(run.events, _rank())
        run_training(recipe, run, arguments.resume, arguments.cache, report, stop)
    except Exception as error:
        # First: the log may be on the disk that is full.
        step = report.step if report else None
        write_failure(failure_of(error, step, resumed=arguments.resume is not None), run.error)
        print_error(error)
        _leave(1)
    _leave(0)


def check_run_dir(run: RunDir) -> None:
    """Exits with a line for people where there is no recipe, or an earlier run that this one would mix with."""
    if not run.recipe.is_file():
        sys.exit(f"trainer: no {run.recipe.name} in {run.path}")
    for left in (run.adapter, run.checkpoints, run.events, run.error):
        if left.exists():
            sys.exit(
                f"trainer: {run.path} has the {left.name} of an earlier run; give each run a folder of its own, with "
                f"a copy of {run.recipe.name} in it"
            )


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths. Relative ones are looked for below the working folder, models also in its
    `models`; absolute ones may be anywhere.

    Raises InputError for what is missing, before anything slow is done.
    """
    dataset = locate_dataset(recipe.dataset.path, _folders(recipe.dataset.path))
    evaluation = recipe.evaluation
    if evaluation.dataset is not None:
        given = evaluation.dataset
        with told_of("evaluation.dataset"):
            held_out = locate_dataset(given.path, _folders(given.path))
        evaluation = evaluation.model_copy(update={"dataset": given.model_copy(update={"path": str(held_out)})})
    folder = locate_model(recipe.model, _folders(recipe.model))
    if folder is None:
        model = recipe.model
    else:
        model = str(folder)
        if recipe.adapter.start_from is None:
            base = loaded_base(folder)
            check_adapter(recipe.adapter, base.shapes, base.kind)
        # Read by huggingface_hub when it is imported: nothing about a local model is asked of the hub.
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


def run_training(recipe: Recipe, run: RunDir, resume: Path | None, cache: Path, report: Report, stop: Stop) -> None:
    began = time.perf_counter()
    if recipe.base_bits is None and recipe.optimizer.type != "adamw_8bit":
        # PEFT imports it wherever it is installed, for more than a second: it is as if it were not.
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
    # Here, so that a bad recipe is told at once and the seconds that this takes are known.
    from trainer.train import train

    report(Phase, name="imports", seconds=time.perf_counter() - began)
    train(recipe, run, resume, cache, report, stop)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _leave(code: int) -> NoReturn:
    """Ends the process without waiting for a model or a dataset that a thread may still be loading, and without taking
    the process group apart: gloo's destructor, run with Python's lock held, joins a thread that may wait for that lock
    (torch 2.13), and then a run that has done all its work never ends."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
