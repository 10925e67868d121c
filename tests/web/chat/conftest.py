"""A service with the real trainer and a tiny model."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.support.service import Service
from tests.trainer.conftest import make_model, serve_tiny, tokenizer

__all__ = ["make_model", "serve_tiny", "tokenizer"]


@pytest.fixture(scope="module")
def live(serve_tiny: Callable[..., AbstractContextManager[Service]]) -> Iterator[Service]:
    settings = {"FINETUNED_INFERENCE_IDLE": "PT20S", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with serve_tiny(**settings) as running:
        yield running


@pytest.fixture(scope="module")
def job_id(live: Service) -> str:
    """A job that has succeeded with a checkpoint, and answers otherwise than its base."""
    recipe = {
        "name": "Greeter",
        "schedule": {"max_steps": 4},
        "optimizer": {"learning_rate": 0.05},
        "checkpointing": {"every_steps": 2},
        "evaluation": {"fraction": 0.25},
    }
    job = live.wait(live.submit(**recipe)["id"], seconds=180)
    assert job["status"] == "succeeded", job["failure"]
    return str(job["id"])
