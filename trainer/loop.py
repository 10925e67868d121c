"""The loop over optimizer steps."""

import math
import time
from dataclasses import replace

from contract.events import Checkpoint, Done, Log, Metric, Phase
from contract.failure import FailureCode, InputError
from contract.order import step_rows
from contract.run_dir import forget_states
from dataset.document import Document
from trainer.device import peak_memory
from trainer.engines.engine import Update
from trainer.engines.optim import learning_rate_factor
from trainer.evaluation import evaluate, evaluation_is_due
from trainer.model.packing import pack
from trainer.ranks import sum_over_ranks
from trainer.run import Run
from trainer.saving.checkpoint import save_adapter
from trainer.saving.fence import check_not_superseded
from trainer.saving.state import Position, random_state, save_state, set_random_state

_LEAST_LOSS_SCALE = 2.0
"""Half of it is the least that DeepSpeed has."""


class Clock:
    """When things happened, on time.perf_counter's clock."""

    def __init__(self) -> None:
        self.started = self.adapter_saved = self.state_saved = time.perf_counter()


def fit(run: Run, position: Position) -> None:
    """Trains from `position` on, with what comes before the first step and after the last."""
    clock = Clock()
    first = position.step + 1
    # Also where an earlier attempt was stopped in the middle of it.
    if position.eval_step != position.step and evaluation_is_due(run, position.step):
        position = evaluate(run, position)
        save_what_is_due(run, position, clock, adapter_late=False, state_late=False)
    while not is_over(run, position) and not run.asked_to_stop():
        after, overdue = take_step(run, position, clock, first)
        if after is None:
            break
        position = after
        if evaluation_is_due(run, position.step):
            position = evaluate(run, position)
        save_what_is_due(run, position, clock, *overdue)
    finish(run, position, trained=position.step >= first)


def take_step(run: Run, position: Position, clock: Clock, first: int) -> tuple[Position | None, tuple[bool, bool]]:
    """One optimizer step. Returns where the run stands after it, None when asked to stop meanwhile: then everything is
    as before; and whether the adapter and the state have not been saved for too long, as all ranks see it."""
    began = time.perf_counter()
    recipe, step = run.recipe, position.step + 1
    documents = [run.data.train[row] for row in step_rows(recipe.seed, step, len(run.data.train), run.window)]
    supervised = sum(document.targets for document in documents)
    tokens = sum(document.length for document in documents)

    random = random_state(run.accelerator.device)
    own_sum, own_stop = backward(run, documents, supervised)
    loss_sum, given_up, adapter_late, state_late = sum_over_ranks(
        run.accelerator, own_sum, own_stop, *overdue(run, clock)
    )
    if given_up:
        set_random_state(run.accelerator.device, random)
        return None, (False, False)
    loss = loss_sum / supervised
    # A step that was skipped moves no weight, and the learning rate not either.
    factor = learning_rate_factor(recipe.schedule, step - position.skipped_steps, run.total_steps)
    learning_rate = recipe.optimizer.learning_rate * factor
    update = run.engine.update(learning_rate, recipe.optimizer.max_grad_norm)
    check_finite(step, loss, update)

    seconds = time.perf_counter() - began
    position = replace(
        position,
        step=step,
        loss_sum=position.loss_sum + loss_sum,
        tokens=position.tokens + supervised,
        skipped_steps=position.skipped_steps + update.overflow,
    )
    if step == first:
        run.report(Phase, name="first_step", seconds=seconds)
        clock.started = time.perf_counter()
    run.report(
        Metric,
        step=step,
        epoch=step / run.steps_per_epoch,
        loss=loss,
        learning_rate=learning_rate,
        grad_norm=update.grad_norm,
        loss_scale=update.loss_scale,
        overflow=update.overflow,
        skipped_steps=position.skipped_steps,
        tokens=tokens,
        supervised_tokens=supervised,
        tokens_per_second=tokens / seconds,
        memory_bytes=peak_memory(run.accelerator.device),
        progress=step / run.total_steps,
        eta_seconds=eta_seconds(step - first, run.total_steps - step, seconds, time.perf_counter() - clock.started),
    )
    return position, (adapter_late > 0, state_late > 0)


def backward(run: Run, documents: list[Document], supervised: int) -> tuple[float, bool]:
    """Leaves the gradients of the step's mean loss in the engine. Returns this rank's sum of token losses, and whether
    it was asked to stop and gave its part of the step up.

    `documents` and `supervised` are the step's, on all ranks and in all micro-batches: the mean is over all its tokens
    alike, however they fall into micro-batches. Engines average over ranks, hence the factor world size.

    Any rank that gave up makes the step void for all. Where the others wait for it in every micro-batch they give up
    together; else it goes to its last one at once, with nothing in it, for the one exchange of gradients.
    """
    engine = run.engine
    scale = run.accelerator.num_processes / supervised
    micro_batches = run.micro_batches(documents)
    losses = []
    for index, micro_batch in enumerate(micro_batches, start=1):
        given_up = run.gives_up(together=engine.divides_gradients)
        if not (given_up and engine.divides_gradients):
            batch = pack([] if given_up else micro_batch).to(run.accelerator.device)
            losses.append(engine.accumulate(batch, scale, exchange=given_up or index == len(micro_batches)))
        if given_up:
            return 0.0, True
    # Read at the end alone: meanwhile a GPU computes one micro-batch while the next is made ready.
    return sum(loss.item() for loss in losses), False


def check_finite(step: int, loss: float, update: Update) -> None:
    """Raises InputError for numbers that no further step can mend. In fp16 one that overflows is skipped, and the next
    ones have a lower scale."""
    if update.overflow:
        finite = math.isfinite(loss) and (update.loss_scale or 0) > _LEAST_LOSS_SCALE
        told = f"the gradients overflow at a loss scale of {update.loss_scale}"
    else:
        finite = math.isfinite(loss) and math.isfinite(update.grad_norm or 0)
        told = f"the gradient's norm is {update.grad_norm}"
    if not finite:
        raise InputError(
            FailureCode.LOSS_NOT_FINITE,
            f'step {step}: the loss is {loss}, and {told}; lower optimizer.learning_rate, or set precision to "fp32"',
            "optimizer.learning_rate",
        )


def overdue(run: Run, clock: Clock) -> tuple[bool, bool]:
    """Whether the adapter and the state have not been saved for too long."""
    now = time.perf_counter()
    every_minutes = run.recipe.checkpointing.every_minutes
    adapter = every_minutes is not None and now - clock.adapter_saved > every_minutes * 60
    return adapter, now - clock.state_saved > run.recipe.checkpointing.training_checkpoint_minutes * 60


def save_what_is_due(run: Run, position: Position, clock: Clock, adapter_late: bool, state_late: bool) -> None:
    """After a step that is not the last."""
    if is_over(run, position) or not has_learned(position):
        return
    every = run.recipe.checkpointing.every_steps
    due = adapter_late or (every is not None and position.step % every == 0)
    if due or position.best_step == position.step:
        save_checkpoint(run, position, final=False)
        clock.adapter_saved = time.perf_counter()
    if due or state_late:
        save_state(
            run.folder, position, run.engine, run.accelerator, run.recipe.checkpointing.keep_training_checkpoints
        )
        clock.state_saved = time.perf_counter()


def save_checkpoint(run: Run, position: Position, *, final: bool) -> None:
    """All ranks give their parts; rank 0 writes, and the others go on and wait for it in the next exchange."""
    adapter = run.engine.adapter()
    if not run.accelerator.is_main_process:
        return
    folder = run.folder.adapter if final else run.folder.checkpoint(position.step)
    if folder.exists():
        return
    check_not_superseded(run.folder)
    size = save_adapter(run.recipe, run.engine.module.model, adapter, run.data.ends, folder)
    run.report(
        Checkpoint,
        step=position.step,
        path=str(folder.relative_to(run.folder.path)),
        bytes=size,
        final=final,
        eval_loss=position.eval_loss if position.eval_step == position.step else None,
    )


def has_learned(position: Position) -> bool:
    """Before that there is nothing to save: every step so far was skipped, for an overflow in fp16."""
    return position.step > position.skipped_steps


def is_over(run: Run, position: Position) -> bool:
    return position.step >= run.total_steps or stops_early(run, position)


def is_evaluated(run: Run, position: Position) -> bool:
    """False where a stop has cut the last evaluation short: it is made up for when the run goes on."""
    return position.eval_step == position.step or not evaluation_is_due(run, position.step)


def stops_early(run: Run, position: Position) -> bool:
    patience = run.recipe.evaluation.patience
    return position.step < run.total_steps and patience is not None and position.evaluations_since_best >= patience


def finish(run: Run, position: Position, trained: bool) -> None:
    completed = is_over(run, position) and is_evaluated(run, position)
    early = completed and stops_early(run, position)
    if early:
        message = (
            f"stopped early at step {position.step}: {position.evaluations_since_best} evaluations without a lower "
            f"loss than {position.best_loss:.4f} of step {position.best_step}"
        )
        run.report(Log, level="info", message=message)
    if completed and not has_learned(position):
        raise InputError(
            FailureCode.LOSS_NOT_FINITE,
            f'precision: the gradients overflowed in every one of {position.step} steps in fp16; use "bf16" or "fp32"',
            "precision",
        )
    if completed:
        save_checkpoint(run, position, final=True)
    elif trained and has_learned(position):
        save_checkpoint(run, position, final=False)
        save_state(
            run.folder, position, run.engine, run.accelerator, run.recipe.checkpointing.keep_training_checkpoints
        )
    run.report(
        Done,
        step=position.step,
        completed=completed,
        stopped_early=early,
        best_step=position.best_step,
        train_loss=position.loss_sum / position.tokens if position.tokens else None,
        eval_loss=position.eval_loss,
    )
    # Last: a run that is killed before it has said that it is done goes on from one, and so does a later attempt.
    if completed and run.accelerator.is_main_process and not run.folder.superseded.exists():
        forget_states([run.folder], keep=0)


def eta_seconds(steps_since_first: int, steps_left: int, step_seconds: float, since_first: float) -> float:
    """From the wall time since the first step, with its evaluations and checkpoints; the first step is slower."""
    per_step = since_first / steps_since_first if steps_since_first else step_seconds
    return per_step * steps_left
