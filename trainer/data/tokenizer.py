"""The model's tokenizer, as the service's previews use it, with the chat template of the recipe."""

import json
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from contract.recipe import Recipe
from dataset.rendering.folder_tokenizer import GENERIC_CLASS, FolderTokenizer, read_tokenizer
from dataset.rendering.tokenizer import MODEL_FILES, TOKENIZER_FILES, end_of_answer, set_chat_template
from trainer.model.base_model import loading_errors

_FOR_CONVERTERS = ("tokenizer.model", "vocab.json", "merges.txt")
"""Not read here, but needed to convert a model to other formats."""
_FOR_IMAGES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""Not read here, but needed to give images to a model."""


def load_tokenizer(recipe: Recipe) -> FolderTokenizer:
    """Raises InputError for a model without tokenizer.json, and for one that cannot write the named chat template."""
    tokenizer = read_tokenizer(tokenizer_folder(recipe.model))
    if recipe.dataset.chat_template is not None:
        set_chat_template(tokenizer, recipe.dataset.chat_template)
    return tokenizer


def tokenizer_folder(model: str) -> Path:
    """The model's own folder, or the hub's snapshot with its tokenizer files."""
    if Path(model).is_dir():
        return Path(model)
    with loading_errors(model):
        return Path(
            snapshot_download(model, allow_patterns=[*MODEL_FILES, *TOKENIZER_FILES, *_FOR_CONVERTERS, *_FOR_IMAGES])
        )


def copy_tokenizer(recipe: Recipe, folder: Path) -> None:
    """Copies the model's own tokenizer, byte for byte, beside its weights and config.json. Only if AutoTokenizer would
    read different tokens from it does its configuration name another class."""
    source = tokenizer_folder(recipe.model)
    for path in (found for pattern in (*TOKENIZER_FILES, *_FOR_CONVERTERS) for found in source.glob(pattern)):
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    if not _is_read_as_it_is(folder):
        _write_config(read_tokenizer(source), folder)


def copy_image_settings(recipe: Recipe, folder: Path) -> None:
    """Copies the model's settings for images beside a merged model, unless only the text part is in it."""
    source = tokenizer_folder(recipe.model)
    kinds = [json.loads((each / "config.json").read_bytes()).get("model_type") for each in (source, folder)]
    for name in _FOR_IMAGES:
        if kinds[0] == kinds[1] and (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def save_tokenizer(recipe: Recipe, folder: Path) -> None:
    """Saves the tokenizer with the recipe's named chat template, so that AutoTokenizer.from_pretrained formats
    conversations as training did.

    Its end-of-text token is the one that ended answers in training, since generation stops there.
    """
    assert recipe.dataset.chat_template is not None
    tokenizer = load_tokenizer(recipe)
    shutil.copyfile(tokenizer_folder(recipe.model) / "tokenizer.json", folder / "tokenizer.json")
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template)
    _write_config(tokenizer, folder, eos_token=end_of_answer(tokenizer, recipe.dataset.chat_template))


def _is_read_as_it_is(folder: Path) -> bool:
    """Whether AutoTokenizer reads tokenizer.json unchanged. Many of transformers' classes take only its vocabulary and
    make their own normalizer and pre-tokenizer."""
    own = PreTrainedTokenizerFast.from_pretrained(folder)
    try:
        read = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    # A class that cannot read it at all may raise anything.
    except Exception:
        return False
    return read.is_fast and read.backend_tokenizer.to_str() == own.backend_tokenizer.to_str()


def _write_config(tokenizer: FolderTokenizer, folder: Path, **changes: Any) -> None:
    """Writes a tokenizer_config.json that makes transformers take tokenizer.json unchanged."""
    config = {**tokenizer.config, **changes, "tokenizer_class": GENERIC_CLASS}
    # The code that it names is not copied.
    config.pop("auto_map", None)
    if (folder / "chat_template.jinja").exists():
        config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    # tokenizer.config includes their content.
    for older in ("special_tokens_map.json", "added_tokens.json"):
        (folder / older).unlink(missing_ok=True)
