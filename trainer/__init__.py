"""Trains a LoRA adapter: `torchrun -m trainer RUN_DIR`."""

import logging
import os
import sys

# Read by OpenMP when torch loads: how long a thread spins before it sleeps. The default is much too long once another
# process wants the same cores (steps took ten times as long); not to spin costs a third of the speed of idle ones.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# `kernels` fetches compiled code from the hub, and bitsandbytes, which PEFT imports, would ask it for some. None is run
# here: it is as if it were not installed. bitsandbytes then says that it has not found it.
sys.modules["kernels"] = None  # type: ignore[assignment]
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward from kernels-community")
)
