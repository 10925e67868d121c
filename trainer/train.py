"""The training run, from a recipe to an adapter."""

import contextlib
import importlib.metadata
import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from contract.events import Checkpoint, Done, Evaluation, Log, Metric, Phase, Started
from contract.failure import FailureReason, InputError
from contract.recipe import Recipe
from contract.run_dir import RunDir
from trainer.checkpoint import save_adapter
from trainer.data import Data, load_data
from trainer.evaluate import evaluation_loss_sum
from trainer.loading import load_together
from trainer.loss import SupervisedLoss
from trainer.model import load_model
from trainer.optim import clip_gradients, learning_rate_factor, make_optimizer, set_learning_rate
from trainer.order import rank_share, step_rows, steps_per_epoch, total_steps
from trainer.packing import Document, pack
from trainer.precision import DTYPES, describe, resolve_precision
from trainer.report import Report
from trainer.state import (
    Position,
    check_position,
    forget_states,
    load_state,
    random_state,
    read_position,
    save_state,
    set_random_state,
)
from trainer.stop import Stop


@dataclass(frozen=True)
class Run:
    """What the loop works with; nothing of it changes but the weights."""

    recipe: Recipe
    folder: RunDir
    accelerator: Accelerator
    report: Report
    stop: Stop
    data: Data
    model: torch.nn.Module
    """Gives the sum of token losses of a packed micro-batch; wrapped for its ranks."""
    optimizer: torch.optim.Optimizer

    @property
    def window(self) -> int:
        """Examples of one optimizer step, on all ranks."""
        batch = self.recipe.batch
        return batch.micro_batch * batch.accumulation * self.accelerator.num_processes

    @property
    def total_steps(self) -> int:
        return total_steps(self.recipe, len(self.data.train), self.window)


def start_accelerator() -> Accelerator:
    """One process per device, as torchrun's environment says; without a GPU, gloo and all the cores."""
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        _share_cores(local_ranks=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    # No accumulation and no mixed precision of Accelerate's: the loss is normalised and cast by us.
    return Accelerator(
        cpu=on_cpu,
        gradient_accumulation_steps=1,
        mixed_precision="no",
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def _share_cores(local_ranks: int) -> None:
    if local_ranks > 1:
        # torchrun gives each of several ranks one thread.
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_ranks))
    # Where it is not set Accelerate changes the number of threads.
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())


def train(
    recipe: Recipe, folder: RunDir, resume: Path | None, accelerator: Accelerator, report: Report, stop: Stop
) -> None:
    """Goes on from the state `resume` where one is given.

    Raises InputError for what only shows once model and data are read, and for a loss that is not finite.
    """
    torch.manual_seed(recipe.seed)
    precision = resolve_precision(recipe.precision, accelerator.device)
    loaded = load_together(
        stop, lambda: _load_model(recipe, precision, accelerator.device, report), lambda: _load_data(recipe, report)
    )
    # Here the ranks meet for the first time: none may leave before, the others would wait for it in vain.
    if asked_to_stop(accelerator, stop) or loaded is None:
        report(Done, step=read_position(resume).step if resume else 0, completed=False, train_loss=None, eval_loss=None)
        return
    module, data = loaded
    # The base comes in evaluation mode, the adapter on it in training mode.
    module.train()
    # DDP broadcasts what it is not told to ignore. The frozen base is the same on every rank: each has loaded it.
    module._ddp_params_and_buffers_to_ignore = _frozen(module)
    # Both are on the device. Accelerate calls a CPU "cpu:0", which to PyTorch is elsewhere: it would copy every weight.
    model, optimizer = accelerator.prepare(
        module, make_optimizer(module.named_parameters(), recipe.optimizer), device_placement=[False, False]
    )
    # Each rank drops out its own units.
    torch.manual_seed(recipe.seed + accelerator.process_index)
    run = Run(recipe, folder, accelerator, report, stop, data, model, optimizer)
    position = Position(0, 0.0, 0, None, examples=len(data.train), window=run.window)
    if resume is not None:
        position = read_position(resume)
        check_position(position, len(data.train), run.window)
        load_state(resume, module.model, optimizer, accelerator)
    _report_start(run, precision, position.step)
    fit(run, position)


def fit(run: Run, position: Position) -> None:
    """The loop over optimizer steps from `position` on, with what comes before the first and after the last."""
    recipe, data, report = run.recipe, run.data, run.report
    first, step, last = position.step + 1, position.step, run.total_steps
    if step == 0:
        position = replace(position, eval_loss=evaluate(run, step))
    started = saved = time.perf_counter()

    while step < last and not asked_to_stop(run.accelerator, run.stop):
        step += 1
        step_began = time.perf_counter()
        rows = step_rows(recipe.seed, step, len(data.train), run.window)
        documents = [data.train[row] for row in rows]
        supervised = sum(document.targets for document in documents)
        tokens = sum(document.length for document in documents)

        learning_rate = recipe.optimizer.learning_rate * learning_rate_factor(recipe.schedule, step, last)
        set_learning_rate(run.optimizer, learning_rate)
        random = random_state(run.accelerator.device)
        late = time.perf_counter() - saved > recipe.checkpointing.state_minutes * 60
        loss_sum, given_up, overdue = sum_over_ranks(run.accelerator, *backward(run, documents, supervised), late)
        if given_up:
            set_random_state(run.accelerator.device, random)
            step -= 1
            break
        loss = loss_sum / supervised
        grad_norm = clip_gradients(run.model.parameters(), recipe.optimizer.max_grad_norm)
        _check_finite(step, loss, grad_norm)
        run.optimizer.step()
        run.optimizer.zero_grad()

        seconds = time.perf_counter() - step_began
        position = replace(
            position, step=step, loss_sum=position.loss_sum + loss_sum, tokens=position.tokens + supervised
        )
        if step == first:
            report(Phase, name="first_step", seconds=seconds)
            started = time.perf_counter()
        report(
            Metric,
            step=step,
            epoch=step / steps_per_epoch(len(data.train), run.window),
            loss=loss,
            learning_rate=learning_rate,
            grad_norm=grad_norm,
            tokens=tokens,
            supervised_tokens=supervised,
            tokens_per_second=tokens / seconds,
            memory_bytes=peak_memory(run.accelerator.device),
            progress=step / last,
            eta_seconds=eta_seconds(step - first, last - step, seconds, time.perf_counter() - started),
        )
        if evaluation_is_due(run, step):
            position = replace(position, eval_loss=evaluate(run, step) or position.eval_loss)
        checkpoint_is_due = step < last and is_due(step, recipe.checkpointing.every_steps)
        if checkpoint_is_due:
            save_checkpoint(run, step, final=False)
        if checkpoint_is_due or overdue:
            save_position(run, position)
            saved = time.perf_counter()

    if step == last:
        save_checkpoint(run, step, final=True)
        if run.accelerator.is_main_process:
            forget_states(run.folder)
    elif step >= first:
        if not is_due(step, recipe.checkpointing.every_steps):
            save_checkpoint(run, step, final=False)
        save_position(run, position)
    report(
        Done,
        step=step,
        completed=step == last,
        train_loss=position.loss_sum / position.tokens if position.tokens else None,
        eval_loss=position.eval_loss,
    )


def backward(run: Run, documents: list[Document], supervised: int) -> tuple[float, bool]:
    """Leaves the gradients of the step's mean loss in the parameters. Returns this rank's sum of token losses, and
    whether it was asked to stop and gave its part of the step up.

    `documents` and `supervised` are the step's, on all ranks and in all micro-batches: the mean is over all its tokens
    alike, however they fall into micro-batches. DDP averages over ranks, hence the factor world size.

    A rank that gives up goes to its last micro-batch at once, with nothing in it: every rank takes part in the one
    exchange of gradients. Any rank that gave up makes the step void for all.
    """
    accelerator = run.accelerator
    scale = accelerator.num_processes / supervised
    micro_batches = rank_share(
        documents, accelerator.process_index, accelerator.num_processes, run.recipe.batch.micro_batch
    )
    loss_sum = 0.0
    for index, micro_batch in enumerate(micro_batches, start=1):
        given_up = run.stop.asked
        exchange = given_up or index == len(micro_batches)
        with contextlib.nullcontext() if exchange else accelerator.no_sync(run.model):
            loss = run.model(pack([] if given_up else micro_batch).to(accelerator.device))
            accelerator.backward(loss * scale)
        if given_up:
            return 0.0, True
        loss_sum += loss.item()
    return loss_sum, False


def evaluate(run: Run, step: int) -> float | None:
    """Mean loss of the held-out examples. None where there are none, or when asked to stop meanwhile."""
    documents = run.data.evaluation
    if not documents:
        return None
    accelerator = run.accelerator
    micro_batches = rank_share(
        documents, accelerator.process_index, accelerator.num_processes, run.recipe.batch.micro_batch
    )
    own_sum = evaluation_loss_sum(run.model, micro_batches, accelerator.device, run.stop)
    loss_sum, stopped = sum_over_ranks(accelerator, own_sum, run.stop.asked)
    if stopped:
        return None
    supervised = sum(document.targets for document in documents)
    loss = loss_sum / supervised
    _check_finite(step, loss)
    run.report(Evaluation, step=step, eval_loss=loss, supervised_tokens=supervised)
    return loss


def save_position(run: Run, position: Position) -> None:
    """All ranks together."""
    model = run.accelerator.unwrap_model(run.model).model
    save_state(run.folder, position, model, run.optimizer, run.accelerator, run.recipe.checkpointing.keep_states)


def save_checkpoint(run: Run, step: int, *, final: bool) -> None:
    """Rank 0 saves the adapter; the others go on and wait for it in the next step."""
    if not run.accelerator.is_main_process:
        return
    folder = run.folder.adapter if final else run.folder.checkpoint(step)
    size = save_adapter(run.accelerator.unwrap_model(run.model).model, folder)
    path = str(folder.relative_to(run.folder.path))
    run.report(Checkpoint, step=step, path=path, bytes=size, final=final)


def asked_to_stop(accelerator: Accelerator, stop: Stop) -> bool:
    """Whether any rank has been: the signal may reach them on either side of a step's end."""
    return sum_over_ranks(accelerator, stop.asked)[0] > 0


def sum_over_ranks(accelerator: Accelerator, *values: float) -> list[float]:
    """Each value summed over the ranks: all of them must call this together."""
    tensor = torch.tensor([float(value) for value in values], dtype=torch.float64, device=accelerator.device)
    return accelerator.reduce(tensor, "sum").tolist()


def is_due(step: int, every_steps: int | None) -> bool:
    return every_steps is not None and step % every_steps == 0


def evaluation_is_due(run: Run, step: int) -> bool:
    every = run.recipe.evaluation.every_steps or steps_per_epoch(len(run.data.train), run.window)
    return step == run.total_steps or is_due(step, every)


def eta_seconds(steps_since_first: int, steps_left: int, step_seconds: float, since_first: float) -> float:
    """From the wall time since the first step, with its evaluations and checkpoints; the first step is slower."""
    per_step = since_first / steps_since_first if steps_since_first else step_seconds
    return per_step * steps_left


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on a GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage: its peak is inherited from the process that launched this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _frozen(module: torch.nn.Module) -> list[str]:
    parameters = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    return parameters + [name for name, _ in module.named_buffers()]


def _load_model(recipe: Recipe, precision: str, device: torch.device, report: Report) -> SupervisedLoss:
    began = time.perf_counter()
    module = load_model(recipe, DTYPES[precision], device)
    report(Phase, name="model", seconds=time.perf_counter() - began)
    return module


def _load_data(recipe: Recipe, report: Report) -> Data:
    began = time.perf_counter()
    data = load_data(recipe)
    report(Phase, name="data", seconds=time.perf_counter() - began)
    return data


def _report_start(run: Run, precision: str, resumed_step: int) -> None:
    parameters = list(run.model.parameters())
    data = run.data
    run.report(
        Started,
        resumed_step=resumed_step,
        total_steps=run.total_steps,
        train_examples=len(data.train),
        eval_examples=len(data.evaluation),
        supervised_tokens=sum(document.targets for document in data.train),
        truncated_examples=data.truncated,
        dropped_examples=data.dropped,
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        total_parameters=sum(p.numel() for p in parameters),
        world_size=run.accelerator.num_processes,
        device=describe(run.accelerator.device),
        precision=precision,
        versions={name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "accelerate")},
    )
    if data.dropped:
        run.report(
            Log,
            level="warning",
            message=f"{data.dropped} examples are left out: no answer within batch.max_length = "
            f"{run.recipe.batch.max_length} tokens",
        )


def _check_finite(step: int, loss: float, grad_norm: float = 0.0) -> None:
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise InputError(
            FailureReason.LOSS_NOT_FINITE,
            f"step {step}: the loss is {loss} and the gradient's norm {grad_norm}; lower optimizer.learning_rate, "
            'or set precision to "fp32"',
            "optimizer.learning_rate",
        )
