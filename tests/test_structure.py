"""What the layout promises."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "part",
    [
        "api.app",
        "worker.attempt",
        "worker.keeper",
        "store.jobs",
        "finetuned.cli",
        "contract.machine",
        "contract.recipe",
        "dataset.read",
        "estimate.plan",
        "dataset.__main__",
        "worker.machine",
    ],
)
def test_only_the_trainer_loads_torch(part: str) -> None:
    code = f"import {part}, sys; print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_the_trainer_knows_no_service() -> None:
    unknown = ("sqlalchemy", "celery", "redis", "fastapi", "psycopg", "store")
    # Without bitsandbytes, as of every recipe that does not ask for it: that imports all that torch.compile can.
    code = (
        "import sys; sys.modules['bitsandbytes'] = None; import trainer.train; "
        f"print([name for name in {unknown} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"
