"""Fields of a recipe that had another name once. Whoever still writes the old one learns the new one."""

from collections.abc import Mapping
from types import MappingProxyType

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "batch.micro_batch": "batch.micro_batch_size",
        "batch.accumulation": "batch.gradient_accumulation_steps",
        "batch.effective": "batch.effective_batch_size",
        "evaluation.share": "evaluation.fraction",
        "resources.share": "resources.allow_sharing",
        "checkpointing.state_minutes": "checkpointing.training_checkpoint_minutes",
        "checkpointing.keep_states": "checkpointing.keep_training_checkpoints",
    }
)
