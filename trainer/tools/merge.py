"""Merges an adapter into its base: `python -m trainer.tools.merge RUN_DIR`, on the CPU.

RUN_DIR/recipe.json is the recipe that the adapter was trained by, with the base and, as `adapter.start_from`, the
adapter resolved to folders. It writes RUN_DIR/merged, a model that plain transformers loads: weights in the base's own
format, config, the tokenizer as training had it, and a generation_config.json that stops at what ended the answers in
training. What was trained on a base in 4 or 8 bits is merged into the base as it is. When it fails it writes
RUN_DIR/error.json and exits with 1.
"""

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from contract.recipe import Recipe
from contract.recipe_errors import read_recipe
from contract.run_dir import RunDir
from trainer.failures import failure_of, print_error, write_failure

_LARGEST_FILE = "5GB"


def main() -> None:
    parser = argparse.ArgumentParser(prog="trainer.tools.merge", description="Merge an adapter into its base model.")
    parser.add_argument("run_dir", type=Path)
    run = RunDir(parser.parse_args().run_dir.resolve())
    try:
        recipe = read_recipe(run.recipe.read_bytes())
        if Path(recipe.model).is_dir():
            # Read by huggingface_hub when it is imported.
            os.environ["HF_HUB_OFFLINE"] = "1"
        # PEFT imports it wherever it is installed, and nothing here is quantised.
        sys.modules["bitsandbytes"] = None  # type: ignore[assignment]
        merge(recipe, run.merged)
    except Exception as error:
        write_failure(failure_of(error), run.error)
        print_error(error)
        sys.exit(1)


def merge(recipe: Recipe, folder: Path) -> None:
    """Raises InputError for a base or a tokenizer that cannot be loaded, and an adapter that does not fit."""
    from huggingface_hub.errors import StrictDataclassFieldValidationError

    from trainer.data.end_tokens import add_ends
    from trainer.data.tokenizer import copy_tokenizer, save_tokenizer
    from trainer.durable import whole_folder

    model = _merged(recipe)
    ends = _ends(recipe)
    add_ends(model.generation_config, ends)
    # The configurations of some models take one alone; generation goes by the other.
    with contextlib.suppress(StrictDataclassFieldValidationError):
        add_ends(model.config.get_text_config(), ends)
    with whole_folder(folder) as beside:
        # First: transformers chooses the tokenizer's class by config.json too.
        model.save_pretrained(beside, max_shard_size=_LARGEST_FILE)
        if recipe.dataset.chat_template is not None:
            save_tokenizer(recipe, beside)
        else:
            copy_tokenizer(recipe, beside)


def _ends(recipe: Recipe) -> set[int]:
    """What ended the answers in training."""
    from dataset.rendering.tokenizer import end_of_answer
    from trainer.data.end_tokens import read_ends
    from trainer.data.tokenizer import load_tokenizer

    ends = set(read_ends(Path(recipe.adapter.start_from or "")))
    if recipe.dataset.chat_template is not None:
        tokenizer = load_tokenizer(recipe)
        ends.add(tokenizer.get_vocab()[end_of_answer(tokenizer, recipe.dataset.chat_template)])
    return ends


def _merged(recipe: Recipe) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from trainer.model.adapter import check_saved
    from trainer.model.base_model import loading_errors

    disable_progress_bar()
    with loading_errors(recipe.model):
        base = AutoModelForCausalLM.from_pretrained(
            recipe.model, dtype="auto", use_safetensors=True, trust_remote_code=False
        )
    adapter = Path(recipe.adapter.start_from or "")
    check_saved(adapter, base)
    adapted = PeftModel.from_pretrained(base, adapter)
    return adapted.merge_and_unload(safe_merge=True)


if __name__ == "__main__":
    main()
