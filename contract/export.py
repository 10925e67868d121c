"""What a worker hands to the process that makes an export."""

from collections.abc import Collection
from typing import Literal

from pydantic import BaseModel

ExportFormat = Literal["merged", "merged-gguf-f16", "merged-gguf-q8_0", "portable", "gguf"]
"""The base model with the adapter merged in, as safetensors or as a GGUF file of 16 or 8 bits; the adapter in the one
form that serving engines read alike; that form as a GGUF file for llama.cpp."""

GGUF_FORMATS: Collection[ExportFormat] = ("gguf", "merged-gguf-f16", "merged-gguf-q8_0")
PORTABLE_FORMATS: Collection[ExportFormat] = ("portable", "gguf")
"""Those that not every adapter has."""


class ExportSpec(BaseModel):
    format: ExportFormat
    base: str
    """The base model's public name: a hub id, or the name of its folder."""
    shard_size: str = "5GB"
    """The largest file of a merged model's weights."""
    init: str = "default"
    """The adapter.init of the first of the jobs that trained the adapter."""
