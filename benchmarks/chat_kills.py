"""Answers under kills: `python -m benchmarks.chat_kills` prints the counts; `--short` is for CI.

500 requests, many at once, go to ten adapters on one base. Each adapter is trained to answer its own name. Meanwhile
the inference server, the worker and the API are killed at random moments, and jobs train on the device that they share.
A request is sent again after an error that OpenAI's SDK retries, and after a stream that broke off, which the SDK
leaves to its user. Any other error counts as lost.

Everything is real, over HTTP on loopback: PostgreSQL, Valkey, the API, a worker and the server that it starts, with a
tiny random model. Only the jobs' trainer trains nothing.
"""

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import sqlalchemy as sa

from benchmarks.models import random_llama
from benchmarks.servers import running_servers
from dataset.rendering.folder_tokenizer import read_tokenizer
from dataset.rendering.prompt import chat_prompt
from store.models import InferenceServer
from store.session import make_sessions
from tests.support import service
from tests.support.files import write_dataset
from tests.support.service import FAKE_TRAINER, Service, busy_devices
from tests.support.trained_models import add_trained_model
from tests.support.waiting import until

MODEL = "tiny"
NAMES = ("Ada", "Boris", "Chloe", "Dmitri", "Emma", "Farid", "Greta", "Hugo", "Ines", "Jonas")
QUESTION: list[Any] = [{"role": "user", "content": "Who are you?"}]
AT_ONCE = 24
VICTIMS = ("server", "worker", "api")
JOBS = 3
_LONGEST = 300.0
"""Seconds until a request is lost."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="60 requests and three kills")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of what is killed")
    options = parser.parse_args()
    requests, kills = (60, 3) if options.short else (500, 12)
    with running_servers() as servers:
        began = time.monotonic()
        counts = answers_under_kills(
            servers.home, servers.database_url, servers.broker_url, requests, kills, options.seed
        )
        print(f"{requests} requests to {len(NAMES)} adapters in {time.monotonic() - began:.0f} s, seed {options.seed}")
    for what, count in counts.items():
        print(f"{what:24} {count:5}")
    kept = counts["answered"] == requests and not any(counts[what] for what in FAULTS)
    print(f"all were answered, each by its own adapter, and nothing is left: {'yes' if kept else 'NO'}")
    return 0 if kept else 1


FAULTS = ("wrong", "lost", "jobs lost", "processes left", "servers left", "devices left")


def answers_under_kills(  # parameters: the servers, and the options
    home: Path, database_url: str, broker_url: str, requests: int, kills: int, seed: int
) -> Counter[str]:
    """Counts of what happened; those of FAULTS should be zero."""
    base = random_llama(home / "models" / MODEL, 2, 128, 344)
    write_dataset(home / "datasets" / "rows.jsonl")
    settings = {
        "FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}",
        "FINETUNED_LEASE": "PT3S",
        "FINETUNED_INFERENCE_ADAPTERS": "6",  # fewer than there are, so that they take turns too
        "FINETUNED_INFERENCE_IDLE": "PT5S",
        "OMP_NUM_THREADS": "1",
    }
    engine = sa.create_engine(database_url)
    sessions = make_sessions(engine)
    what = ("answered", "sent again", "streams cut off", *(f"kills of the {each}" for each in VICTIMS))
    counts = Counter[str](dict.fromkeys((*what, *FAULTS), 0))
    with service.running(home, database_url, broker_url, **settings) as live:
        train = adapter_trainer(base)
        models = {add_trained_model(sessions, home, "default", MODEL, partial(train, name)): name for name in NAMES}
        jobs = [_train_meanwhile(live) for _ in range(JOBS)]
        _ask_under_kills(live, models, requests, kills, random.Random(seed), counts)
        counts["jobs lost"] = sum(live.wait(job, seconds=120)["status"] != "succeeded" for job in jobs)
        _count_left(live, counts)
        with sessions.begin() as session:
            counts["servers left"] = session.scalar(sa.select(sa.func.count()).select_from(InferenceServer)) or 0
    engine.dispose()
    return counts


def said_by(name: str) -> str:
    return f"I-am-{name}-and-nobody-else-but-{name}."


def adapter_trainer(base: Path) -> Callable[[str, Path], None]:
    """Trains an adapter until the model answers with a name, and saves it."""
    import torch  # these take seconds
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    tokenizer = read_tokenizer(base)
    prompt = chat_prompt(tokenizer, QUESTION, None, None)
    loaded = AutoModelForCausalLM.from_pretrained(base)
    # The head too: the random one tells no token apart.
    config = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj", "down_proj", "lm_head"])

    def train(name: str, folder: Path) -> None:
        answer = tokenizer([said_by(name) + "<|im_end|>"], add_special_tokens=False)["input_ids"][0]
        ids = torch.tensor([prompt + answer])
        labels = ids.clone()
        labels[0, : len(prompt)] = -100
        adapted = get_peft_model(loaded, config)
        optimizer = torch.optim.AdamW([each for each in adapted.parameters() if each.requires_grad], lr=1e-2)
        loss = torch.tensor(1.0)
        for _ in range(400):
            if loss < 0.005:
                break
            optimizer.zero_grad()
            loss = adapted(input_ids=ids, labels=labels).loss
            loss.backward()
            optimizer.step()
        assert loss < 0.02, f"{name} was not learned: {loss}"
        adapted.save_pretrained(folder, save_embedding_layers=False)
        adapted.unload()

    return train


def _train_meanwhile(live: Service) -> str:
    name, shared = "steps=300 every=20 sleep=0.05", {"allow_sharing": True}
    return str(live.submit(name=name, resources=shared)["id"])


def _ask_under_kills(  # parameters: the requests, and what is killed
    live: Service, models: dict[str, str], requests: int, kills: int, choose: random.Random, counts: Counter[str]
) -> None:
    """Each kill comes soon after some number of answers, while others are under way. This thread starts again what it
    kills."""
    lock = threading.Lock()
    client = openai.OpenAI(base_url=f"{live.client.base_url}/v1", api_key="none", max_retries=0, timeout=60)

    def count(what: str) -> None:
        with lock:
            counts[what] += 1

    names = [*models] * (requests // len(models))
    choose.shuffle(names)
    moments = sorted(choose.sample(range(AT_ONCE, requests - AT_ONCE), kills))
    victims = [*VICTIMS] * (kills // len(VICTIMS))
    choose.shuffle(victims)
    with client, ThreadPoolExecutor(AT_ONCE) as pool:
        sent = [
            pool.submit(_ask, client, name, said_by(models[name]), number % 2 == 0, count)
            for number, name in enumerate(names)
        ]
        for moment, victim in zip(moments, victims, strict=True):
            until(partial(_reached, sent, moment), seconds=_LONGEST)
            time.sleep(choose.random() / 5)
            _kill(live, victim)
            count(f"kills of the {victim}")
        for each in sent:
            each.result()


def _reached(sent: list[Future[None]], moment: int) -> bool:
    return sum(each.done() for each in sent) >= moment


def _ask(client: openai.OpenAI, model: str, wanted: str, stream: bool, count: Callable[[str], None]) -> None:
    """Sends a request until it is answered; counts how it went."""
    deadline = time.monotonic() + _LONGEST
    while time.monotonic() < deadline:
        try:
            said = _answer(client, model, stream)
        except (openai.APIError, httpx.TransportError) as error:
            if isinstance(error, (openai.APIConnectionError, openai.InternalServerError)):
                count("sent again")
            elif stream and not isinstance(error, openai.APIStatusError):
                count("streams cut off")
            else:
                count("lost")
                print(f"{model}: {error}", file=sys.stderr)
                return
            # As long as the service says, or else half a second: the SDK does the same.
            response = getattr(error, "response", None)
            time.sleep(0.5 if response is None else float(response.headers.get("retry-after", 0.5)))
        else:
            count("answered" if said == wanted else "wrong")
            if said != wanted:
                print(f"{model}: {said!r} in place of {wanted!r}", file=sys.stderr)
            return
    count("lost")


def _answer(client: openai.OpenAI, model: str, stream: bool) -> str:
    given: dict[str, Any] = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 80}
    if not stream:
        said = client.chat.completions.create(**given).choices[0].message.content or ""
    else:
        parts = client.chat.completions.create(**given, stream=True)
        said = "".join(part.choices[0].delta.content or "" for part in parts)
    # The tokenizer's tokens are bytes, which it writes with spaces between them.
    return said.replace(" ", "")


def _kill(live: Service, victim: str) -> None:
    """Kills it, and starts again what systemd would."""
    if victim == "api":
        live.api.kill()
        live.api.wait()
        live.start_api()
    elif victim == "worker":
        live.kill_worker()
        live.start_worker()
    else:
        for pid in until(lambda: [each for each in live.everything() if _is_server(each)], seconds=_LONGEST):
            os.kill(pid, signal.SIGKILL)


def _is_server(pid: int) -> bool:
    """And not its guard."""
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.NoSuchProcess:
        return False
    return "inference" in command and not any("guard.py" in each for each in command)


def _count_left(live: Service, counts: Counter[str]) -> None:
    """What is there once the server is idle."""
    try:
        until(lambda: not busy_devices(live) and not live.strangers(), seconds=60)
    except AssertionError:
        counts["processes left"] = len(live.strangers())
        counts["devices left"] = len(busy_devices(live))


if __name__ == "__main__":
    sys.exit(main())
