"""What a worker hands to the process that makes an export."""

from typing import Literal

from pydantic import BaseModel

ExportFormat = Literal["merged", "portable", "gguf"]
"""The base model with the adapter merged in; the adapter in the one form that serving engines read alike; that form as
a GGUF file for llama.cpp."""


class ExportSpec(BaseModel):
    format: ExportFormat
    base: str
    """The base model's public name: a hub id, or the name of its folder."""
    shard_size: str = "5GB"
    """The largest file of a merged model's weights."""
    init: str = "default"
    """The adapter.init of the first of the jobs that trained the adapter."""
