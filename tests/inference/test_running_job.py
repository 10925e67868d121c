"""A job that trains is talked to meanwhile, on the one device that it shares."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import sqlalchemy as sa

from tests.support import service
from tests.support.database import empty_database
from tests.support.waiting import until
from tests.trainer.tiny_models import add_model_and_rows

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


def test_checkpoint_of_a_running_job_answers_soon(
    make_model: Callable[[str], Path], tmp_path: Path, engine: sa.Engine, database_url: str, broker_url: str
) -> None:
    empty_database(engine)
    add_model_and_rows(tmp_path, make_model("llama"))
    recipe: dict[str, Any] = {
        "adapter": {"r": 4, "alpha": 8},
        "batch": {"micro_batch_size": 1},
        "schedule": {"epochs": 1000},
        "checkpointing": {"every_steps": 300},
        "resources": {"allow_sharing": True},
    }
    question: Any = [{"role": "user", "content": "What is 3 plus 3?"}]
    with (
        service.running(tmp_path, database_url, broker_url, OMP_NUM_THREADS="1") as live,
        openai.OpenAI(base_url=f"{live.client.base_url}/v1", api_key="none") as client,
    ):
        client.chat.completions.create(model="tiny", messages=question, max_tokens=1)
        job = live.submit(**recipe)["id"]
        first = until(lambda: next(iter(client.fine_tuning.jobs.checkpoints.list(job)), None), seconds=120)
        began = time.monotonic()
        answer = client.chat.completions.create(
            model=first.fine_tuned_model_checkpoint, messages=question, temperature=0, max_tokens=20
        )
        assert answer.choices[0].message.content is not None
        assert time.monotonic() - began < 9  # and a second for its publishing
        assert live.job(job)["status"] == "running"
        live.ask("cancel", job)
        live.wait(job)
