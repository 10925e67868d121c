"""Trains a LoRA adapter: `torchrun -m trainer RUN_DIR`."""
