"""A trainer that trains nothing: a real process that does what its recipe's name says.

It runs as `python fake_trainer.py RUN_DIR`, which the worker's setting `trainer` names. The name is a
list of words: "late=1 steps=3 every=2 sleep=0.1 ranks=2 fp16 fail=out_of_memory fits=4 kill=9 half=17 torn exit=3
slow=2 stubborn rogue orphan leak bug phases".
What fails with `once` does so in the first attempt alone.

What it trains is a number, which each step changes, and each state holds: the losses tell which state it went on from.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from contract import events
from contract.failure import Failure, FailureCode
from contract.fault import Fault
from contract.recipe import Recipe
from contract.run_dir import RunDir, list_states, write_checksums

stop = False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--rank", type=int)
    arguments = parser.parse_args()
    run_dir = RunDir(arguments.run_dir)
    recipe = Recipe.model_validate_json(run_dir.recipe.read_bytes())
    words = dict(word.partition("=")[::2] for word in (recipe.name or "").split())
    if "once" in words and run_dir.path.name != "attempt-1":
        words = {
            name: value for name, value in words.items() if name not in ("fail", "kill", "exit", "half", "torn", "slow")
        }
    if "ranks" in words and arguments.rank is None:
        launch(int(words["ranks"]))
    if arguments.rank is not None:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    sys.stdout.write(f"the fake trainer speaks {json.dumps(words)}\n")
    time.sleep(float(words.get("late", 0)))
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in words else _stop)
    if arguments.rank or serves_another_machine():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        wait_for_the_end(run_dir)
        sys.exit(0)
    if "orphan" in words:  # as torchrun's ranks: in a session of its own, deaf to the end of its parent
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        (run_dir.path / "orphan.pid").write_text(str(child.pid))
    if "environment" in words:
        (run_dir.path / "environment.json").write_text(json.dumps(dict(os.environ)))
    if "phases" in words:
        for name in ("imports", "model", "data"):
            tell(run_dir, events.PhaseEvent(time=time.time(), name=name, seconds=0.01))
    total = int(words.get("steps", 2))
    number = run_dir.path.name.removeprefix("attempt-")
    attempt = int(number) if number.isdigit() else 1  # else it was started by hand
    resumed, weight = json.loads((arguments.resume / "step").read_text()) if arguments.resume else (0, 0)
    batch = recipe.batch
    assert batch.micro_batch_size != "auto"
    tell(
        run_dir,
        started(
            total,
            resumed,
            batch.micro_batch_size,
            batch.effective_batch_size or batch.micro_batch_size * (batch.gradient_accumulation_steps or 1),
        ),
    )
    if batch.micro_batch_size > int(words.get("fits", batch.micro_batch_size)):
        words["fail"] = FailureCode.OUT_OF_MEMORY
    for step in range(resumed + 1, total + 1):
        weight = train(weight, step)
        reported = metric(step, total, weight, attempt, fp16="fp16" in words)
        if step == int(words.get("half", 0)):
            line = reported.model_dump_json()
            with run_dir.events.open("a") as file:
                file.write(line[: len(line) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        tell(run_dir, reported)
        if "phases" in words and step == resumed + 1:
            tell(run_dir, events.PhaseEvent(time=time.time(), name="first_step", seconds=0.01))
        time.sleep(float(words.get("sleep", 0)))
        if stop or step % int(words.get("every", total + 1)) == 0:
            leave_if_superseded(run_dir, words)
            save(run_dir, step, weight, float(words.get("slow", 0)))
        if stop:
            tell(
                run_dir, events.DoneEvent(time=time.time(), step=step, completed=False, train_loss=None, eval_loss=None)
            )
            sys.exit(1)  # as torchrun does when it is stopped
    if "fail" in words:
        message = "as the recipe's name asks"
        if "leak" in words:
            message = f"{message}, with {os.environ['HF_TOKEN']}"
            sys.stdout.write(f"Authorization: Bearer {os.environ['HF_TOKEN']}\n")
            tell(run_dir, events.LogEvent(time=time.time(), level="warning", message=message))
        fault = Fault(exception="builtins.KeyError", location="fake_trainer.py:1 main", step=total)
        failure = Failure(code=FailureCode(words["fail"]), message=message, fault=fault if "bug" in words else None)
        run_dir.error.write_text(failure.model_dump_json())
        sys.exit(1)
    if "torn" in words:
        (newest, *_) = list_states([run_dir])
        (newest / "step").write_text("")
    if "kill" in words:
        os.kill(os.getpid(), int(words["kill"]))
    if "exit" in words:
        sys.exit(int(words["exit"]))
    leave_if_superseded(run_dir, words)
    save(run_dir, total)
    tell(run_dir, events.DoneEvent(time=time.time(), step=total, completed=True, train_loss=1.0, eval_loss=None))


def leave_if_superseded(run_dir: RunDir, words: dict[str, str]) -> None:
    """As the real one, before it saves; `rogue` it does not care."""
    if run_dir.superseded.exists() and "rogue" not in words:
        sys.exit(1)


def train(weight: int, step: int) -> int:
    return (weight * 31 + step) % 9973


def losses(steps: int) -> list[float]:
    """Of a run that nobody has disturbed."""
    weights = [0]
    for step in range(1, steps + 1):
        weights.append(train(weights[-1], step))
    return [loss(weight) for weight in weights[1:]]


def loss(weight: int) -> float:
    return 1 + weight / 9973


def serves_another_machine() -> bool:
    """Of several machines the first alone tells the run folder; the others' workers log to trainer-RANK.log."""
    return Path(os.readlink("/proc/self/fd/1")).name.startswith("trainer-")


def wait_for_the_end(run_dir: RunDir) -> None:
    """Of this rank, which trains nothing. On a cluster nobody stops it: it leaves with the first one, as torchrun's."""
    if stop:
        return
    if "SLURM_JOB_ID" not in os.environ:
        signal.sigwait({signal.SIGTERM})
        return
    while not has_ended(run_dir) and not signal.sigtimedwait({signal.SIGTERM}, 0.2):
        pass


def has_ended(run_dir: RunDir) -> bool:
    return run_dir.events.exists() and b'"type":"done"' in run_dir.events.read_bytes()


def launch(ranks: int) -> NoReturn:
    """As torchrun: each rank in a session of its own; when one fails, or it is stopped, it stops them all."""
    command = [sys.executable, "-P", *sys.argv, "--rank"]
    children = [subprocess.Popen([*command, str(rank)], start_new_session=True) for rank in range(ranks)]
    signal.signal(signal.SIGTERM, _stop)
    while not stop and children[0].poll() is None and not any(child.poll() for child in children):
        time.sleep(0.02)
    failed = [child for child in children if child.poll()]
    for child in children:
        child.terminate()
    for child in children:
        child.wait()
    for child in failed:
        sys.stdout.write(f"  exitcode  : {child.returncode} (pid: {child.pid})\n")
    sys.exit(1 if failed or stop else 0)


def _stop(*_: object) -> None:
    global stop
    stop = True


def started(total: int, resumed: int, micro_batch: int = 1, effective: int = 1) -> events.StartedEvent:
    return events.StartedEvent(
        time=time.time(),
        resumed_step=resumed,
        total_steps=total,
        train_examples=1000,
        eval_examples=0,
        supervised_tokens=1,
        truncated_examples=0,
        dropped_examples=0,
        trainable_parameters=1,
        total_parameters=1,
        world_size=1,
        micro_batch_size=micro_batch,
        effective_batch_size=effective,
        device="none",
        precision="fp32",
        versions={"torch": "2.0+none"},
    )


def metric(step: int, total: int, weight: int, attempt: int, fp16: bool) -> events.MetricEvent:
    """Its `tokens` are the attempt's number, which shows who wrote it."""
    overflow = fp16 and step == 1
    return events.MetricEvent(
        time=time.time(),
        step=step,
        epoch=step / total,
        loss=loss(weight),
        learning_rate=1e-4,
        grad_norm=None if overflow else 1.0,
        loss_scale=65536.0 / min(step, 2) if fp16 else None,
        overflow=overflow,
        skipped_steps=int(fp16),
        tokens=attempt,
        supervised_tokens=5,
        tokens_per_second=100.0,
        memory_bytes=1,
        progress=step / total,
        eta_seconds=0.0,
    )


def save(run_dir: RunDir, step: int, weight: int | None = None, seconds: float = 0) -> None:
    """An adapter: the final one, or one with a state beside it, which has the weight and takes so long."""
    final = weight is None
    folder = run_dir.adapter if final else run_dir.checkpoint(step)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    if not final:
        run_dir.state(step).mkdir(parents=True)
        (run_dir.state(step) / "step").write_text(json.dumps([step, weight]))
        time.sleep(seconds)
        write_checksums(run_dir.state(step))
    path = str(folder.relative_to(run_dir.path))
    tell(run_dir, events.CheckpointEvent(time=time.time(), step=step, path=path, bytes=2, final=final))


def tell(run_dir: RunDir, event: events.Event) -> None:
    with run_dir.events.open("a") as file:
        file.write(event.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
