"""Who takes part: how each is started on a work, and what it tells of it."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.trainer.derived import planned_bytes
from benchmarks.trainer.measure import watch
from benchmarks.trainer.run import FLOOR, OURS, Run
from benchmarks.trainer.work import ROOT, Work, recipe_of, threads
from contract.recipe import Recipe
from worker.launchers.torchrun import launcher
from worker.supervise.process import trainer_environment

RIVALS = Path(__file__).with_name("rivals")
ENVIRONMENTS = ROOT / ".rivals"


@dataclass(frozen=True)
class Arm:
    name: str
    script: list[str]
    """Of a rival, in the folder rivals, with its arguments; ours and the floor have none."""
    environment: str = ""
    """The virtual environment that rivals/setup makes for it, named after the package that it is about."""
    change: dict[str, Any] = field(default_factory=dict)
    """Of ours, to the recipe."""


ARMS = {
    "ours": Arm(OURS, []),
    "compiled": Arm("finetuned, torch_compile", [], change={"torch_compile": True}),
    "checkpointed": Arm("finetuned, gradient_checkpointing", [], change={"gradient_checkpointing": True}),
    "fp8": Arm("finetuned, fp8", [], change={"precision": "fp8"}),
    "transformers": Arm("transformers Trainer", ["hf_trainer.py"], "trl"),
    "trl": Arm("TRL default", ["trl_sft.py"], "trl"),
    "trl-tuned": Arm("TRL tuned", ["trl_sft.py", "tuned"], "trl"),
    "trl-liger": Arm("TRL tuned, Liger", ["trl_sft.py", "liger"], "trl"),
    "llamafactory": Arm("LLaMA-Factory", ["llama_factory.py"], "llamafactory"),
    "floor": Arm(FLOOR, []),
}


def install(names: list[str]) -> None:
    """The environments of these arms, where they are missing. Leaves the process where one cannot be made."""
    for environment in sorted({ARMS[name].environment for name in names} - {""}):
        if not _is_installed_here(environment):
            subprocess.run([RIVALS / "setup", environment], check=True)


def _is_installed_here(package: str) -> bool:
    """Whether this process's own environment has a rival, as on a machine that pip cannot reach anything from."""
    return importlib.util.find_spec(package) is not None


def run_arm(name: str, work: Work, folder: Path, number: int, warmup: int, limit: float) -> Run:
    """An arm that fails, or takes longer than `limit` seconds, is reported with its log and has no figures."""
    arm = ARMS[name]
    folder.mkdir(parents=True)
    # What a worker passes on to a trainer, for all alike.
    environment = trainer_environment(os.environ) | {
        "OMP_NUM_THREADS": str(threads(work.shape.ranks)),
        "HF_HUB_OFFLINE": "1",
    }
    watched = watch(_command(arm, work, folder), ROOT, folder / "log.txt", environment, limit)
    if watched.returncode != 0:
        print(f"{arm.name} failed ({watched.returncode}): {folder / 'log.txt'}", file=sys.stderr, flush=True)
        return Run(arm.name, work.name, number)
    ours = not arm.script and arm.name != FLOOR
    steps, used = _told_by_us(folder) if ours else _told(folder)
    ends = [step["time"] for step in steps]
    if len(ends) != work.shape.steps:
        raise SystemExit(f"{arm.name} took {len(ends)} steps in place of {work.shape.steps}: {folder}")
    seconds, tokens = ends[-1] - ends[warmup - 1], sum(work.real[warmup:])
    taken = watched.processor_seconds(ends[warmup - 1], ends[-1])
    return Run(
        arm=arm.name,
        work=work.name,
        round=number,
        supervised_rate=sum(work.supervised[warmup:]) / seconds,
        real_rate=tokens / seconds,
        processor_rate=tokens / taken if taken else None,
        peak_bytes=watched.peak_bytes,
        launch=ends[0] - watched.launched,
        first_step=steps[0]["seconds"],
        step_seconds=[after - before for before, after in itertools.pairwise(ends)],
        used={key: value for key, value in used.items() if not key.startswith("cuda")},
        adapter=None if name == "floor" else str(folder / "adapter"),
        cuda_allocated=used.get("cuda_allocated"),
        cuda_reserved=used.get("cuda_reserved"),
        planned_bytes=planned_bytes(work, Recipe.model_validate(_recipe(arm, work))) if ours else None,
    )


def _recipe(arm: Arm, work: Work) -> dict[str, Any]:
    return recipe_of(work.model, work.rows, work.shape) | arm.change


def _command(arm: Arm, work: Work, folder: Path) -> list[str]:
    ranks = work.shape.ranks
    if arm.name == FLOOR:
        return [sys.executable, "-m", "benchmarks.trainer.floor", str(work.folder), str(folder)]
    if not arm.script:
        (folder / "recipe.json").write_text(json.dumps(_recipe(arm, work)))
        return [*launcher(ranks), str(folder), "--cache", str(work.cache)]
    own = ENVIRONMENTS / arm.environment / "bin" / "python"
    python = sys.executable if _is_installed_here(arm.environment) else str(own)
    script, *arguments = arm.script
    start = [python]
    if ranks > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return [*start, str(RIVALS / script), str(work.folder), str(folder), *arguments]


def _told(folder: Path) -> tuple[list[dict[str, float]], dict[str, Any]]:
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return steps, json.loads((folder / "used.json").read_text())


def _told_by_us(folder: Path) -> tuple[list[dict[str, float]], dict[str, Any]]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    (started,) = (event for event in events if event["type"] == "started")
    (first,) = (event for event in events if event["type"] == "phase" and event["name"] == "first_step")
    steps = [event for event in events if event["type"] == "metric"]
    used = {
        "base": {"bf16": "bfloat16", "fp32": "float32", "fp8": "float8_e4m3fn+bfloat16"}[started["precision"]],
        "adapter": "float32",
        "autocast": "off",
        "checkpointing": json.loads((folder / "recipe.json").read_text()).get("gradient_checkpointing", False),
        "device": started["device"],
        "versions": started["versions"],
    }
    if not started["device"].startswith("CPU"):
        used["cuda_allocated"] = steps[-1]["memory_bytes"]
    return [{"time": step["time"], "seconds": first["seconds"]} for step in steps], used
