"""Every claim that needs a GPU, checked in one go: `scripts/gpu-check`."""
