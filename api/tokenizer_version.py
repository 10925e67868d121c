"""Tells whether a model's tokenizer or template is still the one that was read before."""

import hashlib
import importlib.metadata
from pathlib import Path

from dataset.rendering.tokenizer import MODEL_FILES, TODAY, TOKENIZER_FILES


def tokenizer_version(model: Path) -> str:
    """By the bytes of the files that it is read from, the libraries that read them and the date that templates write.
    Size and time do not tell files apart that were unpacked or copied with their times."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jinja2", "tokenizers")]
    files = []
    for path in sorted(found for pattern in (*MODEL_FILES, *TOKENIZER_FILES) for found in model.glob(pattern)):
        if path.exists():  # a link to nothing is not read
            with path.open("rb") as file:
                files.append(f"{path.relative_to(model)} {hashlib.file_digest(file, 'sha256').hexdigest()}")
    return "\n".join([str(TODAY), *versions, *files])
