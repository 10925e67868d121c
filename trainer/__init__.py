"""Trains a LoRA adapter: `torchrun -m trainer RUN_DIR`."""

import os

# Read by OpenMP when torch loads: how long a thread spins before it sleeps. The default is much too long once another
# process wants the same cores (steps took ten times as long); not to spin costs a third of the speed of idle ones.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
