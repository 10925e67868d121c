"""A trainer that trains nothing: a real process that does what its recipe's name says.

It runs as `python fake_trainer.py RUN_DIR`, which the worker is told by its setting `trainer`. The name is a
list of words: "late=1 steps=3 every=2 sleep=0.1 fp16 fail=out_of_memory kill=9 exit=3 stubborn orphan".
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from contract import events
from contract.failure import Failure, FailureReason
from contract.recipe import Recipe
from contract.run_dir import RunDir

stop = False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--resume", type=Path)
    arguments = parser.parse_args()
    run_dir = RunDir(arguments.run_dir)
    recipe = Recipe.model_validate_json(run_dir.recipe.read_bytes())
    words = dict(word.partition("=")[::2] for word in (recipe.name or "").split())
    sys.stdout.write(f"the fake trainer speaks {json.dumps(words)}\n")
    time.sleep(float(words.get("late", 0)))
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in words else _stop)
    if "orphan" in words:  # as torchrun's ranks: in a session of its own, deaf to the end of its parent
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        (run_dir.path / "orphan.pid").write_text(str(child.pid))
    if "environment" in words:
        (run_dir.path / "environment.json").write_text(json.dumps(dict(os.environ)))
    total = int(words.get("steps", 2))
    resumed = int((arguments.resume / "step").read_text()) if arguments.resume else 0
    tell(run_dir, started(total, resumed))
    for step in range(resumed + 1, total + 1):
        tell(run_dir, metric(step, total, fp16="fp16" in words))
        time.sleep(float(words.get("sleep", 0)))
        if stop or step % int(words.get("every", total + 1)) == 0:
            save(run_dir, step, final=False)
        if stop:
            tell(run_dir, events.Done(time=time.time(), step=step, completed=False, train_loss=None, eval_loss=None))
            sys.exit(1)  # as torchrun does when it is told to stop
    if "fail" in words:
        failure = Failure(reason=FailureReason(words["fail"]), message="as the recipe's name asks")
        run_dir.error.write_text(failure.model_dump_json())
        sys.exit(1)
    if "kill" in words:
        os.kill(os.getpid(), int(words["kill"]))
    if "exit" in words:
        sys.exit(int(words["exit"]))
    save(run_dir, total, final=True)
    tell(run_dir, events.Done(time=time.time(), step=total, completed=True, train_loss=1.0, eval_loss=None))


def _stop(*_: object) -> None:
    global stop
    stop = True


def started(total: int, resumed: int) -> events.Started:
    return events.Started(
        time=time.time(),
        resumed_step=resumed,
        total_steps=total,
        train_examples=1,
        eval_examples=0,
        supervised_tokens=1,
        truncated_examples=0,
        dropped_examples=0,
        trainable_parameters=1,
        total_parameters=1,
        world_size=1,
        device="none",
        precision="fp32",
        versions={},
    )


def metric(step: int, total: int, fp16: bool) -> events.Metric:
    overflow = fp16 and step == 1
    return events.Metric(
        time=time.time(),
        step=step,
        epoch=step / total,
        loss=3.0 / step,
        learning_rate=1e-4,
        grad_norm=None if overflow else 1.0,
        loss_scale=65536.0 / min(step, 2) if fp16 else None,
        overflow=overflow,
        skipped_steps=int(fp16),
        tokens=10,
        supervised_tokens=5,
        tokens_per_second=100.0,
        memory_bytes=1,
        progress=step / total,
        eta_seconds=0.0,
    )


def save(run_dir: RunDir, step: int, final: bool) -> None:
    folder = run_dir.adapter if final else run_dir.checkpoint(step)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    if not final:
        run_dir.state(step).mkdir(parents=True)
        (run_dir.state(step) / "step").write_text(str(step))
    path = str(folder.relative_to(run_dir.path))
    tell(run_dir, events.Checkpoint(time=time.time(), step=step, path=path, bytes=2, final=final))


def tell(run_dir: RunDir, event: events.Event) -> None:
    with run_dir.events.open("a") as file:
        file.write(event.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
