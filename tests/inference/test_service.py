"""The official SDK against a running service, whose worker starts the model's server by itself."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

from contract.run_dir import RunDir
from store.session import Sessions
from tests.inference.served_models import command_of, processes, say, sdk, servers
from tests.support.service import FAKE_TRAINER, Service, busy_devices
from tests.support.trained_models import add_trained_model
from tests.support.waiting import until
from worker.supervise.inference import FOLDER

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def live(serve_tiny: Callable[..., AbstractContextManager[Service]]) -> Iterator[Service]:
    settings = {
        "FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}",
        "FINETUNED_LEASE": "PT3S",
        "FINETUNED_INFERENCE_ADAPTERS": "3",
        "FINETUNED_INFERENCE_IDLE": "PT20S",
        "OMP_NUM_THREADS": "1",
    }
    with serve_tiny(**settings) as running:
        yield running


@pytest.fixture(scope="module")
def models(live: Service, database: Sessions, make_adapter: Callable[..., Path]) -> list[str]:
    """Fine-tuned models of one owner, with different answers."""

    def add(seed: int) -> str:
        base = live.home / "models" / "tiny"
        save = partial(make_adapter, base, seed, r=4, target_modules="all-linear")
        return add_trained_model(database, live.home, "anna", "tiny", save)

    return [add(seed) for seed in range(10)]


def test_sdk_gets_answers_whole_streamed_and_async(client: openai.OpenAI, live: Service, models: list[str]) -> None:
    fields: dict[str, Any] = {"max_tokens": 12, "temperature": 0}
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
    for model in ("tiny", models[0]):
        whole = client.chat.completions.create(
            model=model, messages=messages, n=2, logprobs=True, top_logprobs=2, **fields
        )
        assert (whole.object, whole.model, len(whole.choices)) == ("chat.completion", model, 2)
        text = whole.choices[0].message.content
        assert text
        assert whole.choices[1].message.content == text
        assert whole.choices[0].logprobs
        assert whole.usage
        scored = whole.choices[0].logprobs.content or []
        assert whole.usage.completion_tokens >= 2 * len(scored) > 0
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in scored)

        chunks = list(
            client.chat.completions.create(
                model=model, messages=messages, stream=True, stream_options={"include_usage": True}, **fields
            )
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
        assert chunks[-1].usage
        assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens

        continued = client.completions.create(model=model, prompt="Hello", logprobs=1, **fields)
        assert continued.choices[0].logprobs
        assert continued.choices[0].logprobs.tokens
        parts = client.completions.create(model=model, prompt="Hello", stream=True, **fields)
        assert "".join(part.choices[0].text for part in parts) == continued.choices[0].text

    async def answer() -> str:
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key) as other:
            stream = await other.chat.completions.create(model="tiny", messages=messages, stream=True, **fields)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert (
        asyncio.run(answer())
        == client.chat.completions.create(model="tiny", messages=messages, **fields).choices[0].message.content
    )


def test_many_requests_are_answered_by_their_own_models(client: openai.OpenAI, models: list[str]) -> None:
    names = ["tiny", *models]
    alone = {name: say(client, name) for name in names}
    assert len(set(alone.values())) == len(names)
    with ThreadPoolExecutor(12) as pool:
        sent = [(name, pool.submit(say, client, name)) for name in names * 6]
        for name, answer in sent:
            assert answer.result() == alone[name]


def test_switching_among_ten_adapters_loads_the_base_once(
    client: openai.OpenAI, live: Service, database: Sessions, models: list[str]
) -> None:
    say(client, "tiny")
    (before,) = servers(database)
    assert len({say(client, name) for name in models * 2}) == len(models) == 10
    (after,) = servers(database)
    assert after.id == before.id
    log = RunDir(live.home / "runs" / FOLDER / after.id).log.read_text()
    assert log.count("tiny is loaded in") == 1


def test_refusals_are_the_sdks_own_classes(client: openai.OpenAI, live: Service, models: list[str]) -> None:
    with pytest.raises(openai.NotFoundError):
        say(client, "nothing")
    with sdk(live, "bert") as stranger, pytest.raises(openai.NotFoundError):
        say(stranger, models[0])
    with pytest.raises(openai.NotFoundError):
        say(client, f"{models[0]}:ckpt-step-1")
    with pytest.raises(openai.BadRequestError) as long:
        say(client, "tiny", "hello " * 600)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError) as unsupported:
        say(client, "tiny", presence_penalty=0.5)
    assert unsupported.value.param == "presence_penalty"
    with pytest.raises(openai.BadRequestError) as tools:
        say(client, "tiny", tools=[{"type": "function", "function": {"name": "look", "parameters": {}}}])
    assert tools.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as empty:
        client.chat.completions.create(model="tiny", messages=[{"role": "assistant", "content": "Hi."}])
    assert empty.value.param == "messages"


def test_answers_are_in_the_audit_log(live: Service, client: openai.OpenAI, models: list[str]) -> None:
    say(client, models[0])
    (entry,) = live.client.get("/audit", params={"limit": 1}).json()["data"]
    assert (entry["action"], entry["data"]["model"]) == ("model.answer", models[0])


def test_killed_server_ends_its_answers_and_another_starts(
    client: openai.OpenAI, live: Service, database: Sessions
) -> None:
    say(client, "tiny")
    (before,) = servers(database)
    stream = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=400, stream=True, temperature=2
    )
    next(stream)
    for pid in processes(live):
        if "guard.py" not in " ".join(command_of(pid)):
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(openai.APIError, match="cut off"):
        list(stream)
    until(lambda: not servers(database) and not processes(live) and not busy_devices(live))
    assert say(client, "tiny")
    (after,) = servers(database)
    assert after.id != before.id


@pytest.mark.exhaustive
def test_waiting_job_takes_the_device(client: openai.OpenAI, live: Service, database: Sessions) -> None:
    say(client, "tiny")
    job = live.submit(name="steps=4000 sleep=0.05")["id"]
    began = time.monotonic()
    live.wait(job, "running")
    assert time.monotonic() - began < 8
    assert not [server for server in servers(database) if server.worker]
    with pytest.raises(openai.InternalServerError) as busy:
        say(client, "tiny")
    assert busy.value.status_code == 503
    assert busy.value.code == "model_unavailable"
    assert int(busy.value.response.headers["retry-after"]) > 0
    live.ask("cancel", job)
    live.wait(job)
    assert say(client, "tiny")


@pytest.mark.exhaustive
def test_killed_worker_leaves_no_server(client: openai.OpenAI, live: Service, database: Sessions) -> None:
    say(client, "tiny")
    live.kill_worker()
    until(lambda: not processes(live))
    live.start_worker()
    assert say(client.with_options(max_retries=5), "tiny")
    assert len(servers(database)) == 1


@pytest.mark.exhaustive
def test_killed_api_ends_its_answers(client: openai.OpenAI, live: Service, database: Sessions) -> None:
    say(client, "tiny")
    (before,) = servers(database)
    stream = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=400, stream=True, temperature=2
    )
    next(iter(stream))
    live.api.kill()
    live.api.wait()
    live.start_api()
    assert say(client.with_options(max_retries=5), "tiny")
    assert [server.id for server in servers(database)] == [before.id]


@pytest.mark.exhaustive
def test_stopped_worker_ends_its_servers(client: openai.OpenAI, live: Service, database: Sessions) -> None:
    assert say(client.with_options(max_retries=5), "tiny")
    live.stop_worker()
    assert processes(live) == []
    assert servers(database) == []
    live.start_worker()
