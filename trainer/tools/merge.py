"""Merges an adapter into its base: `python -m trainer.tools.merge RUN_DIR`, on the CPU.

RUN_DIR/recipe.json is the recipe that the adapter was trained with; its base and its `adapter.start_from` are folders.
The command writes RUN_DIR/merged, a model that plain transformers loads: weights in the base's own format, config, the
tokenizer of training, and a generation_config.json that stops at the tokens that ended the learned answers. An adapter
that was trained on a base in 4 or 8 bits is merged into the original base, and one for a base whose files are quantised
into the dequantised weights. On failure it writes RUN_DIR/error.json and
exits with 1.
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from contract.recipe import Recipe
from contract.recipe_errors import parse_recipe
from contract.run_dir import RunDir
from trainer.environment import hide_package, prepare_process
from trainer.failures import failure_from, print_error, write_failure

_MAX_SHARD_SIZE = "5GB"


def main() -> None:
    prepare_process()
    parser = argparse.ArgumentParser(prog="trainer.tools.merge", description="Merge an adapter into its base model.")
    parser.add_argument("run_dir", type=Path)
    run = RunDir(parser.parse_args().run_dir.resolve())
    try:
        recipe = parse_recipe(run.recipe.read_bytes())
        if Path(recipe.model).is_dir():
            # huggingface_hub reads this when it is imported.
            os.environ["HF_HUB_OFFLINE"] = "1"
        # PEFT imports it if it is installed, and nothing here is quantised.
        hide_package("bitsandbytes")
        merge(recipe, run.merged)
    except Exception as error:
        write_failure(failure_from(error), run.error)
        print_error(error)
        sys.exit(1)


def merge(recipe: Recipe, folder: Path) -> None:
    """Raises InputError for a base or a tokenizer that cannot be loaded, and for an adapter that does not fit."""
    from huggingface_hub.errors import StrictDataclassFieldValidationError

    from trainer.data.end_tokens import add_end_tokens
    from trainer.data.tokenizer import copy_image_settings, copy_tokenizer, save_tokenizer
    from trainer.durable import atomic_folder

    model = _merged(recipe)
    ends = _ends(recipe)
    add_end_tokens(model.generation_config, ends)
    # Some models' configurations accept only one id. Generation uses the other configuration.
    with contextlib.suppress(StrictDataclassFieldValidationError):
        add_end_tokens(model.config.get_text_config(), ends)
    with atomic_folder(folder) as beside:
        # First, because transformers chooses the tokenizer's class by config.json too.
        model.save_pretrained(beside, max_shard_size=_MAX_SHARD_SIZE)
        if recipe.dataset.chat_template is not None:
            save_tokenizer(recipe, beside)
        else:
            copy_tokenizer(recipe, beside)
        copy_image_settings(recipe, beside)


def _ends(recipe: Recipe) -> set[int]:
    """The tokens that ended the answers in training."""
    from dataset.rendering.tokenizer import end_of_answer
    from trainer.data.end_tokens import read_end_tokens
    from trainer.data.tokenizer import load_tokenizer

    ends = set(read_end_tokens(Path(recipe.adapter.start_from or "")))
    if recipe.dataset.chat_template is not None:
        tokenizer = load_tokenizer(recipe)
        ends.add(tokenizer.get_vocab()[end_of_answer(tokenizer, recipe.dataset.chat_template)])
    return ends


def _merged(recipe: Recipe) -> Any:
    from peft import PeftModel
    from transformers.utils.logging import disable_progress_bar

    from trainer.model.adapter import check_saved_adapter
    from trainer.model.base_model import loading_errors
    from trainer.model.pretrained import load_pretrained

    disable_progress_bar()
    with loading_errors(recipe.model):
        base = load_pretrained(recipe.model)
    adapter = Path(recipe.adapter.start_from or "")
    check_saved_adapter(adapter, base)
    adapted = PeftModel.from_pretrained(base, adapter)
    return adapted.merge_and_unload(safe_merge=True)


if __name__ == "__main__":
    main()
