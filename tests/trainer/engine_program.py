"""Run by torchrun: what two ranks have with each engine, and in each variant.

torchrun --nproc-per-node=2 -m tests.trainer.engine_program MODEL OUT '{"ddp": {}, "zero-2": {...}}' \\
    '{"bf16": {"recipe": {"precision": "bf16"}, "engines": ["zero-2"]}}'
"""

import json
import sys
from pathlib import Path

from trainer.environment import hide_package, lasting_imports, prepare_process


def main() -> None:
    model, out, engines, variants = sys.argv[1:]
    # As the trainer does.
    prepare_process()
    if not any("base_bits" in variant["recipe"] for variant in json.loads(variants).values()):
        hide_package("bitsandbytes")
    with lasting_imports():
        from tests.trainer.engine_process import compare

    compare(model, Path(out), json.loads(engines), json.loads(variants))


if __name__ == "__main__":
    main()
