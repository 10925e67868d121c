"""The model's tokenizer: the one that the service previews with, with the chat template that the conversations are
written by."""

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
"""Not read here; those who make other formats of a model want them."""


def load_tokenizer(recipe: Recipe) -> FolderTokenizer:
    """Raises InputError for a model without tokenizer.json, and one that cannot write the named chat template."""
    tokenizer = read_tokenizer(tokenizer_folder(recipe.model))
    if recipe.dataset.chat_template is not None:
        set_chat_template(tokenizer, recipe.dataset.chat_template)
    return tokenizer


def tokenizer_folder(model: str) -> Path:
    """The model's own folder, or the hub's snapshot with the files of its tokenizer."""
    if Path(model).is_dir():
        return Path(model)
    with loading_errors(model):
        return Path(snapshot_download(model, allow_patterns=[*MODEL_FILES, *TOKENIZER_FILES, *_FOR_CONVERTERS]))


def copy_tokenizer(recipe: Recipe, folder: Path) -> None:
    """Puts the model's own tokenizer beside its weights and config.json, byte for byte. Only where AutoTokenizer would
    read other tokens out of it than it has, the class that its configuration names is another."""
    source = tokenizer_folder(recipe.model)
    for path in (found for pattern in (*TOKENIZER_FILES, *_FOR_CONVERTERS) for found in source.glob(pattern)):
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    if not _is_read_as_it_is(folder):
        _write_config(read_tokenizer(source), folder)


def save_tokenizer(recipe: Recipe, folder: Path) -> None:
    """Puts the tokenizer with the named chat template of the recipe into a folder: there AutoTokenizer.from_pretrained
    writes conversations as training did, which the model's own does not.

    Its end-of-text token is what ended an answer in training, as that is where generation stops by it.
    """
    assert recipe.dataset.chat_template is not None
    tokenizer = load_tokenizer(recipe)
    shutil.copyfile(tokenizer_folder(recipe.model) / "tokenizer.json", folder / "tokenizer.json")
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template)
    _write_config(tokenizer, folder, eos_token=end_of_answer(tokenizer, recipe.dataset.chat_template))


def _is_read_as_it_is(folder: Path) -> bool:
    """Whether AutoTokenizer makes of it what is in tokenizer.json. Many of transformers' classes take the vocabulary
    out of that file, and make normalizer and pre-tokenizer anew."""
    own = PreTrainedTokenizerFast.from_pretrained(folder)
    try:
        read = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    # Of a class that cannot read it at all.
    except Exception:
        return False
    return read.is_fast and read.backend_tokenizer.to_str() == own.backend_tokenizer.to_str()


def _write_config(tokenizer: FolderTokenizer, folder: Path, **changes: Any) -> None:
    """tokenizer_config.json by which transformers takes tokenizer.json as it is."""
    config = {**tokenizer.config, **changes, "tokenizer_class": GENERIC_CLASS}
    # Its code is not there.
    config.pop("auto_map", None)
    if (folder / "chat_template.jinja").exists():
        config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    # tokenizer.config has what is in them.
    for older in ("special_tokens_map.json", "added_tokens.json"):
        (folder / older).unlink(missing_ok=True)
