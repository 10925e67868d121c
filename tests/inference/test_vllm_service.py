"""The official SDK against a running service, whose worker has a fake of vLLM answer."""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

from store.models import InferenceServer
from store.session import Sessions
from tests.inference.running_vllm import FAKE_VLLM
from tests.inference.served_models import command_of, processes, say, servers
from tests.support.service import FAKE_TRAINER, Service, busy_devices
from tests.support.trained_models import add_trained_model
from tests.support.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def live(serve_tiny: Callable[..., AbstractContextManager[Service]]) -> Iterator[Service]:
    settings = {
        "FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}",
        "FINETUNED_LEASE": "PT3S",
        "FINETUNED_INFERENCE_VLLM": shlex.join(FAKE_VLLM),
        "FINETUNED_INFERENCE_IDLE": "PT20S",
        "OMP_NUM_THREADS": "1",
    }
    with serve_tiny(**settings) as running:
        yield running


@pytest.fixture(scope="module")
def models(live: Service, database: Sessions, make_adapter: Callable[..., Path]) -> list[str]:
    """Fine-tuned models: one that vLLM answers with, and one with DoRA."""
    base = live.home / "models" / "tiny"
    options: list[dict[str, Any]] = [{}, {"use_dora": True}]
    saves = [partial(make_adapter, base, 1, r=4, target_modules="all-linear", **each) for each in options]
    return [add_trained_model(database, live.home, "anna", "tiny", save) for save in saves]


def fakes(live: Service) -> list[int]:
    return [pid for pid in live.everything() if "fake_vllm" in " ".join(command_of(pid))]


def test_sdk_gets_vllms_answers_whole_and_streamed(client: openai.OpenAI, live: Service, models: list[str]) -> None:
    fields: dict[str, Any] = {"max_tokens": 12, "temperature": 0, "messages": [{"role": "user", "content": "Hello?"}]}
    texts = []
    for model in ("tiny", models[0]):
        whole = client.chat.completions.create(model=model, n=2, logprobs=True, top_logprobs=2, **fields)
        text = whole.choices[0].message.content
        assert whole.choices[1].message.content == text
        assert whole.choices[0].logprobs
        assert all(len(token.top_logprobs) == 2 for token in whole.choices[0].logprobs.content or [])
        chunks = client.chat.completions.create(model=model, stream=True, **fields)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
        continued = client.completions.create(model=model, prompt="Hello", max_tokens=4, logprobs=1)
        assert continued.choices[0].logprobs
        texts.append(text)
    assert texts[0] != texts[1]
    assert len(fakes(live)) == 1
    with pytest.raises(openai.BadRequestError, match="DoRA") as refused:
        say(client, models[1])
    assert refused.value.param == "model"
    with pytest.raises(openai.BadRequestError) as long:
        say(client, "tiny", "hello " * 600)
    assert long.value.code == "context_length_exceeded"
    (entry,) = live.client.get("/audit", params={"limit": 1}).json()["data"]
    assert entry["action"] == "model.answer"


def test_killed_vllm_ends_its_answers_and_another_starts(
    client: openai.OpenAI, live: Service, database: Sessions
) -> None:
    assert say(client, "tiny")
    (before,) = servers(database)
    stream = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=400, stream=True, temperature=2
    )
    next(stream)
    (pid,) = fakes(live)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(openai.APIError, match="cut off"):
        list(stream)
    until(lambda: before.id not in [server.id for server in servers(database)] and not processes(live))
    assert not busy_devices(live)
    assert say(client, "tiny")


@pytest.mark.exhaustive
def test_killed_server_leaves_no_vllm(client: openai.OpenAI, live: Service, database: Sessions) -> None:
    assert say(client, "tiny")
    for pid in processes(live):
        if "guard.py" not in " ".join(command_of(pid)) and pid not in fakes(live):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not fakes(live) and not processes(live) and not _on_devices(database))


@pytest.mark.exhaustive
def test_killed_worker_leaves_no_vllm(client: openai.OpenAI, live: Service, database: Sessions) -> None:
    assert say(client, "tiny")
    live.kill_worker()
    until(lambda: not fakes(live) and not processes(live))
    live.start_worker()
    assert say(client.with_options(max_retries=5), "tiny")


@pytest.mark.exhaustive
def test_sharing_job_takes_the_whole_device(client: openai.OpenAI, live: Service, database: Sessions) -> None:
    assert say(client, "tiny")
    job = live.submit(name="steps=4000 sleep=0.05", resources={"allow_sharing": True})["id"]
    live.wait(job, "running")
    assert not fakes(live)
    with pytest.raises(openai.InternalServerError) as busy:
        say(client, "tiny")
    assert busy.value.code == "model_unavailable"
    live.ask("cancel", job)
    live.wait(job)


def _on_devices(database: Sessions) -> list[InferenceServer]:
    return [server for server in servers(database) if server.worker]
