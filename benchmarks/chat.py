"""Answers of an inference server: `python -m benchmarks.chat` prints the figures; `--short` is for CI.

- The first answer of all, which starts the server, and the first token from a warm one.
- Eight requests at once, beside the same eight in turn: tokens a second. Both orders alternate.
- Ten adapters in turn on one base: the first answer of each, which loads it, and a later one.
- Training steps beside an idle server and without one, in turn, and the CPU time that the service takes meanwhile.

Everything is real, over HTTP on loopback: PostgreSQL, Valkey, the API, a worker, and the server that it starts, with
SmolLM2-135M-Instruct and random adapters of rank 16 on all its linear modules.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from benchmarks.models import random_llama
from benchmarks.servers import running_servers
from finetuned.stack.models import add_model
from store.models import InferenceServer
from store.scheduling import inference
from store.session import Sessions, make_sessions
from tests.support import service
from tests.support.service import Service
from tests.support.trained_models import add_trained_model
from tests.support.waiting import until

MODEL = "smollm2-135m-instruct"
TOGETHER = 8
PROMISED = 3.0
"""Tokens a second of eight requests at once, over those of the same in turn."""
WARM_UP = 3
MOST_COST = 0.02
"""Share of the time of training that an idle server may add."""
QUESTION = [{"role": "user", "content": "Tell me a story about a lighthouse."}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a tiny random model, few tokens, three adapters")
    options = parser.parse_args()
    with running_servers() as servers:
        if options.short:
            random_llama(servers.home / "models" / MODEL, 2, 128, 344)
        else:
            add_model(MODEL, servers.home / "models", servers.folder / "import.log")
        engine = sa.create_engine(servers.database_url)
        with service.running(servers.home, servers.database_url, servers.broker_url) as live:
            measure(live, make_sessions(engine), options.short)
        engine.dispose()


def measure(live: Service, sessions: Sessions, short: bool) -> None:
    tokens, rounds, adapters = (16, 1, 3) if short else (64, 3, 10)
    began = time.perf_counter()
    answer(live, MODEL, 1)
    print(f"the first answer, with the start of the server  {time.perf_counter() - began:7.2f} s")
    firsts = sorted(first_token(live, MODEL) for _ in range(3 if short else 9))
    print(f"the first token from a warm server              {1000 * statistics.median(firsts):7.0f} ms")
    compare(live, tokens, rounds)
    (before,) = servers_of(sessions)
    make = adapter_maker(live.home / "models" / MODEL)
    names = [add_trained_model(sessions, live.home, "default", MODEL, make) for _ in range(adapters)]
    for title in (
        "the first token of an adapter, with its loading ",
        "the first token of an adapter, loaded           ",
    ):
        times = sorted(first_token(live, name) for name in names)
        print(f"{title}{1000 * statistics.median(times):7.0f} ms, at most {1000 * times[-1]:.0f} ms")
    (after,) = servers_of(sessions)
    assert after == before, "the base was loaded again"
    print(f"the base was loaded once for {len(names)} adapters")
    compare_training(live, sessions, *((20, 2) if short else (20, 6)))


def compare(live: Service, tokens: int, rounds: int) -> None:
    ratios = []
    for _ in range(rounds):
        began = time.perf_counter()
        alone = sum(answer(live, MODEL, tokens, seed=number) for number in range(TOGETHER))
        in_turn = alone / (time.perf_counter() - began)
        began = time.perf_counter()
        with ThreadPoolExecutor(TOGETHER) as pool:
            counts = pool.map(lambda number: answer(live, MODEL, tokens, seed=number), range(TOGETHER))
            at_once = sum(counts) / (time.perf_counter() - began)
        ratios.append(at_once / in_turn)
        print(f"tokens a second: {in_turn:7.1f} in turn, {at_once:7.1f} at once, {ratios[-1]:.2f} times")
    kept = statistics.median(ratios) >= PROMISED
    print(f"{TOGETHER} at once reach {PROMISED:g} times those in turn: {'yes' if kept else 'NO'}")


def compare_training(live: Service, sessions: Sessions, steps: int, rounds: int) -> None:
    """Steps of this process, which has the machine to itself but for the service."""
    step = training_step(live.home / "models" / MODEL)
    ratios, cores = [], os.cpu_count() or 1
    shares: dict[bool, list[float]] = {True: [], False: []}
    for number in range(rounds):
        seconds = {}
        for idle in (True, False) if number % 2 else (False, True):
            set_idle(live, sessions, idle)
            for _ in range(WARM_UP):
                step()
            before, began = cpu_of(live), time.perf_counter()
            seconds[idle] = statistics.median(timed(step) for _ in range(steps))
            shares[idle].append((cpu_of(live) - before) / (time.perf_counter() - began) / cores)
        ratios.append(seconds[True] / seconds[False])
    cost, more = statistics.median(ratios) - 1, statistics.median(shares[True]) - statistics.median(shares[False])
    print(
        f"training beside an idle server takes {100 * cost:+.1f}% time, {100 * min(ratios) - 100:+.1f} to "
        f"{100 * max(ratios) - 100:+.1f}% in {rounds} pairs"
    )
    print(f"API, worker and server take {100 * more:+.2f}% of the CPUs beside an idle server")
    print(f"an idle server costs at most {100 * MOST_COST:.0f}%: {'yes' if cost <= MOST_COST else 'NO'}")


def set_idle(live: Service, sessions: Sessions, idle: bool) -> None:
    """Has a server that is idle, or none."""
    if idle:
        answer(live, MODEL, 1)
        return
    with sessions.begin() as session:
        inference.stop(session, servers_of(sessions))
    until(lambda: not servers_of(sessions), seconds=60)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu_of(live: Service) -> float:
    """Seconds that the service's processes have computed."""
    total = 0.0
    for pid in live.everything():
        with suppress(psutil.NoSuchProcess):
            total += sum(psutil.Process(pid).cpu_times()[:2])
    return total


def training_step(base: Path) -> Callable[[], object]:
    """A step of LoRA on random tokens."""
    import torch  # these take seconds
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    adapted = get_peft_model(loaded, LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([each for each in adapted.parameters() if each.requires_grad], lr=1e-4)
    ids = torch.randint(0, 1000, (1, 128))

    def step() -> None:
        optimizer.zero_grad()
        adapted(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()

    return step


def answer(live: Service, model: str, tokens: int, seed: int = 0) -> int:
    """The number of its tokens."""
    body = {"model": model, "messages": QUESTION, "max_tokens": tokens, "temperature": 0.7, "seed": seed}
    found = live.client.post("/v1/chat/completions", json=body, timeout=120).raise_for_status().json()
    return int(found["usage"]["completion_tokens"])


def first_token(live: Service, model: str) -> float:
    body = {"model": model, "messages": QUESTION, "max_tokens": 4, "temperature": 0, "stream": True, "logprobs": True}
    began, arrived = time.perf_counter(), []
    with live.client.stream("POST", "/v1/chat/completions", json=body, timeout=120) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if '"logprob"' in line or '"finish_reason":"' in line:
                arrived.append(time.perf_counter())
    return arrived[0] - began


def servers_of(sessions: Sessions) -> list[str]:
    with sessions.begin() as session:
        return list(session.scalars(sa.select(InferenceServer.id)))


def adapter_maker(base: Path) -> Callable[[Path], Any]:
    """Copies of one random adapter."""
    from peft import LoraConfig, get_peft_model  # these take seconds
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(loaded, config)
    return lambda folder: adapted.save_pretrained(folder, save_embedding_layers=False)


if __name__ == "__main__":
    main()
