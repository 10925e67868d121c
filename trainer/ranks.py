"""The processes that torchrun has started, one for each device, and what they agree on."""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

from contract.recipe import Recipe
from trainer.stop import Stop

PATIENCE = timedelta(hours=2)
"""With other ranks: one may have to load its model over a slow network. That one has died, torchrun notices."""


def start_ranks(recipe: Recipe, precision: str) -> Accelerator:
    """One process per device, as torchrun's environment says; without a GPU, gloo and all the cores."""
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        _share_cores(local_ranks=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    engine = recipe.parallel.engine
    if engine != "ddp" and "RANK" not in os.environ:
        os.environ |= {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": "0",
        }
    if engine == "deepspeed":
        # Read by DeepSpeed when it is imported, which takes a second and more: only when asked for.
        os.environ.setdefault("DS_ACCELERATOR", "cpu" if on_cpu else "cuda")
        from trainer.engines.zero import start_deepspeed

        return start_deepspeed(recipe.parallel, recipe.optimizer.max_grad_norm, precision == "fp16", PATIENCE)
    # No accumulation and no mixed precision of Accelerate's: the loss is normalised and cast by us.
    return Accelerator(
        cpu=on_cpu,
        gradient_accumulation_steps=1,
        mixed_precision="no",
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )


def _share_cores(local_ranks: int) -> None:
    if local_ranks > 1:
        # torchrun gives each of several ranks one thread.
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_ranks))
    # Where it is not set Accelerate changes the number of threads.
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())


def sum_over_ranks(accelerator: Accelerator, *values: float) -> list[float]:
    """Each value summed over the ranks: all of them must call this together."""
    tensor = torch.tensor([float(value) for value in values], dtype=torch.float64, device=accelerator.device)
    return accelerator.reduce(tensor, "sum").tolist()


def max_over_ranks(accelerator: Accelerator, value: float) -> float:
    """All of them must call this together."""
    return accelerator.gather(torch.tensor([value], dtype=torch.float64, device=accelerator.device)).max().item()


def asked_to_stop(accelerator: Accelerator, stop: Stop) -> bool:
    """Whether any rank has been: the signal may reach them on either side of a step's end."""
    return sum_over_ranks(accelerator, stop.asked)[0] > 0
