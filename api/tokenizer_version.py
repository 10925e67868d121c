"""Tells whether a model's tokenizer or template is still the one that was read before."""

from pathlib import Path


def tokenizer_version(model: Path) -> str:
    """By path, size and time of the files that it is read from."""
    files = (*model.glob("*.json"), *model.glob("*.jinja"), *model.glob("additional_chat_templates/*.jinja"))
    stats = ((file, file.stat()) for file in sorted(files) if file.exists())  # a link to nothing is not read
    return "\n".join(f"{file} {status.st_size} {status.st_mtime_ns}" for file, status in stats)
