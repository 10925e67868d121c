"""The loop over optimizer steps."""

import math
import time
from dataclasses import asdict, dataclass, replace

from contract.events import CheckpointEvent, DoneEvent, LogEvent, MetricEvent, PhaseEvent
from contract.failure import FailureCode, InputError
from contract.order import rows_of_step
from contract.run_dir import prune_states
from trainer.baseline import measure_baseline
from trainer.data.items import Item
from trainer.device import peak_memory
from trainer.engines.engine import Update
from trainer.engines.optim import learning_rate_factor
from trainer.evaluation import evaluate, evaluation_is_due
from trainer.methods.objective import Score
from trainer.ranks import sum_over_ranks
from trainer.run import TrainingRun
from trainer.saving.checkpoint import save_adapter
from trainer.saving.fence import check_not_superseded
from trainer.saving.state import TrainerState, random_state, save_state, set_random_state

_LEAST_LOSS_SCALE = 2.0
"""Half of it is DeepSpeed's minimum."""


@dataclass(frozen=True)
class StepResult:
    """What is reported about one optimizer step."""

    loss: float
    score: Score
    router_loss: float | None
    learning_rate: float
    update: Update
    tokens: int
    supervised_tokens: int
    seconds: float


class Clock:
    """Times of past events, on time.perf_counter's clock."""

    def __init__(self) -> None:
        self.started = self.adapter_saved = self.state_saved = time.perf_counter()


def fit(run: TrainingRun, state: TrainerState) -> None:
    """Trains from `state` on, including the first evaluation and the final save."""
    clock = Clock()
    first = state.step + 1
    # Also if an earlier attempt was stopped in the middle of it.
    if state.eval_step != state.step and evaluation_is_due(run, state.step):
        state = evaluate(run, state)
        save_if_due(run, state, clock, adapter_overdue=False, state_overdue=False)
    while not is_finished(run, state) and not run.stop_requested():
        after, overdue = take_step(run, state, clock, first)
        if after is None:
            break
        state = after
        if evaluation_is_due(run, state.step):
            state = evaluate(run, state)
        save_if_due(run, state, clock, *overdue)
    finish(run, state, trained=state.step >= first)


def take_step(
    run: TrainingRun, state: TrainerState, clock: Clock, first: int
) -> tuple[TrainerState | None, tuple[bool, bool]]:
    """Takes one optimizer step.

    Returns the new state, or None if a stop was requested meanwhile, in which case nothing has changed; and whether the
    adapter and the state are overdue for saving, as all ranks see it.
    """
    began = time.perf_counter()
    recipe, step = run.recipe, state.step + 1
    items = [
        run.data.train[row] for row in rows_of_step(recipe.seed, step, len(run.data.train), run.effective_batch_size)
    ]
    supervised = sum(item.targets for item in items)
    tokens = sum(item.length for item in items)
    objective = run.engine.module.objective
    weight = objective.weight(len(items), supervised)

    random = random_state(run.accelerator.device)
    own = backward(run, items, weight)
    *sums, router_sum, abandoned, adapter_overdue, state_overdue = sum_over_ranks(
        run.accelerator, *own.sums, own.router_sum, own.abandoned, *saves_overdue(run, clock)
    )
    if abandoned:
        set_random_state(run.accelerator.device, random)
        return None, (False, False)
    loss = sums[0] / weight
    # A skipped step changes neither the weights nor the learning rate.
    factor = learning_rate_factor(recipe.schedule, step - state.skipped_steps, run.total_steps)
    learning_rate = recipe.optimizer.learning_rate * factor
    update = run.engine.update(learning_rate, recipe.optimizer.max_grad_norm)
    check_finite(step, loss, update)

    seconds = time.perf_counter() - began
    state = replace(
        state,
        step=step,
        loss_sum=state.loss_sum + sums[0],
        weight=state.weight + weight,
        skipped_steps=state.skipped_steps + update.overflow,
    )
    if step == first:
        run.report(PhaseEvent, name="first_step", seconds=seconds)
        clock.started = time.perf_counter()
    router_loss = None if run.engine.module.router is None else router_sum / weight
    score = objective.score(sums, weight)
    result = StepResult(loss, score, router_loss, learning_rate, update, tokens, supervised, seconds)
    report_step(run, state, result, clock, first)
    return state, (adapter_overdue > 0, state_overdue > 0)


def report_step(run: TrainingRun, state: TrainerState, result: StepResult, clock: Clock, first: int) -> None:
    steps_left = run.total_steps - state.step
    since_first = time.perf_counter() - clock.started
    run.report(
        MetricEvent,
        step=state.step,
        epoch=state.step / run.steps_per_epoch,
        loss=result.loss,
        **asdict(result.score),
        router_loss=result.router_loss,
        learning_rate=result.learning_rate,
        grad_norm=result.update.grad_norm,
        loss_scale=result.update.loss_scale,
        overflow=result.update.overflow,
        skipped_steps=state.skipped_steps,
        tokens=result.tokens,
        supervised_tokens=result.supervised_tokens,
        tokens_per_second=result.tokens / result.seconds,
        memory_bytes=peak_memory(run.accelerator.device),
        progress=state.step / run.total_steps,
        eta_seconds=eta_seconds(state.step - first, steps_left, result.seconds, since_first),
    )


@dataclass(frozen=True)
class RankSums:
    """What this rank has added up in a step."""

    sums: list[float]
    """The objective's, without the routers' loss."""
    router_sum: float = 0.0
    abandoned: bool = False
    """Whether it abandoned the step because of a stop request."""


def backward(run: TrainingRun, items: list[Item], weight: int) -> RankSums:
    """Leaves the gradients of the step's mean loss in the engine.

    `items` and `weight` are the whole step's, over all ranks and micro-batches: the mean is over all of it, however it
    is divided into micro-batches. Engines average over ranks, hence the factor world size.

    If any rank abandons the step, it is void for all. Where ranks wait for each other in every micro-batch, they
    abandon it together; otherwise a rank goes straight to its last micro-batch, with an empty one, for the single
    gradient sync.
    """
    engine, router = run.engine, run.engine.module.router
    baseline = measure_baseline(run, items)
    if router is not None:
        router.take()
    scale = run.accelerator.num_processes / weight
    micro_batches = run.micro_batches(items)
    found = []
    for index, micro_batch in enumerate(micro_batches, start=1):
        abandoned = run.should_abandon(together=engine.shards_gradients)
        if not (abandoned and engine.shards_gradients):
            batch = run.pack([] if abandoned else micro_batch, baseline)
            found.append(engine.accumulate(batch, scale, sync_gradients=abandoned or index == len(micro_batches)))
        if abandoned:
            return RankSums([0.0] * engine.module.objective.sums, abandoned=True)
    # Read only at the end, so that a GPU computes one micro-batch while the next is prepared.
    loss, *others = (sum(each) for each in zip(*(sums.tolist() for sums in found), strict=True))
    if router is None:
        return RankSums([loss, *others])
    of_routers = router.take()
    return RankSums([loss - router.coefficient * of_routers, *others], of_routers)


def check_finite(step: int, loss: float, update: Update) -> None:
    """Raises InputError for values that no further step can repair. In fp16 a step that overflows is skipped, and the
    next ones have a lower loss scale."""
    if update.overflow:
        finite = math.isfinite(loss) and (update.loss_scale or 0) > _LEAST_LOSS_SCALE
        problem = f"the gradients overflow at a loss scale of {update.loss_scale}"
    else:
        finite = math.isfinite(loss) and math.isfinite(update.grad_norm or 0)
        problem = f"the gradient's norm is {update.grad_norm}"
    if not finite:
        raise InputError(
            FailureCode.LOSS_NOT_FINITE,
            f"step {step}: the loss is {loss}, and {problem}; lower optimizer.learning_rate, or set precision to "
            '"fp32"',
            "optimizer.learning_rate",
        )


def saves_overdue(run: TrainingRun, clock: Clock) -> tuple[bool, bool]:
    """Whether the adapter and the state have waited too long to be saved."""
    now = time.perf_counter()
    every_minutes = run.recipe.checkpointing.every_minutes
    adapter = every_minutes is not None and now - clock.adapter_saved > every_minutes * 60
    return adapter, now - clock.state_saved > run.recipe.checkpointing.training_checkpoint_minutes * 60


def save_if_due(
    run: TrainingRun, state: TrainerState, clock: Clock, adapter_overdue: bool, state_overdue: bool
) -> None:
    """Saves after a step that is not the last."""
    if is_finished(run, state) or not has_learned(state):
        return
    checkpointing = run.recipe.checkpointing
    due = adapter_overdue or _ends_interval(state.step, checkpointing.every_steps, 1)
    due = due or _ends_interval(state.step, checkpointing.every_epochs, run.steps_per_epoch)
    if due or state.best_step == state.step:
        save_checkpoint(run, state, final=False)
        clock.adapter_saved = time.perf_counter()
    if due or state_overdue:
        save_state(run, state)
        clock.state_saved = time.perf_counter()


def _ends_interval(step: int, every: int | None, steps: int) -> bool:
    """Whether an interval of `every` times `steps` ends with the step; never without `every`."""
    return every is not None and step % (every * steps) == 0


def save_checkpoint(run: TrainingRun, state: TrainerState, *, final: bool) -> None:
    """All ranks contribute their parts and rank 0 writes. The others continue, and wait for it in the next gradient
    sync."""
    adapter = run.engine.adapter()
    if not run.accelerator.is_main_process:
        return
    folder = run.folder.adapter if final else run.folder.checkpoint(state.step)
    if folder.exists():
        return
    check_not_superseded(run.folder)
    is_evaluated_here = state.eval_step == state.step
    size = save_adapter(run.recipe, run.engine.module.model, adapter, run.data.ends, folder)
    run.report(
        CheckpointEvent,
        step=state.step,
        path=str(folder.relative_to(run.folder.path)),
        bytes=size,
        final=final,
        eval_loss=state.eval_loss if is_evaluated_here else None,
        reward_accuracy=state.eval_accuracy if is_evaluated_here else None,
        reward_margin=state.eval_margin if is_evaluated_here else None,
    )


def has_learned(state: TrainerState) -> bool:
    """False while every step so far was skipped for an overflow in fp16: there is nothing to save yet."""
    return state.step > state.skipped_steps


def is_finished(run: TrainingRun, state: TrainerState) -> bool:
    return state.step >= run.total_steps or stops_early(run, state)


def is_evaluated(run: TrainingRun, state: TrainerState) -> bool:
    """False if a stop interrupted the last evaluation. The resumed run makes up for it."""
    return state.eval_step == state.step or not evaluation_is_due(run, state.step)


def stops_early(run: TrainingRun, state: TrainerState) -> bool:
    patience = run.recipe.evaluation.patience
    return state.step < run.total_steps and patience is not None and state.evaluations_since_best >= patience


def finish(run: TrainingRun, state: TrainerState, trained: bool) -> None:
    completed = is_finished(run, state) and is_evaluated(run, state)
    early = completed and stops_early(run, state)
    if early:
        message = (
            f"stopped early at step {state.step}: {state.evaluations_since_best} evaluations without a better result "
            f"than at step {state.best_step}, which had a loss of {state.best_loss:.4f}"
        )
        run.report(LogEvent, level="info", message=message)
    if completed and not has_learned(state):
        raise InputError(
            FailureCode.LOSS_NOT_FINITE,
            f'precision: the gradients overflowed in every one of {state.step} steps in fp16; use "bf16" or "fp32"',
            "precision",
        )
    if completed:
        save_checkpoint(run, state, final=True)
    elif trained and has_learned(state):
        save_checkpoint(run, state, final=False)
        save_state(run, state)
    run.report(
        DoneEvent,
        step=state.step,
        completed=completed,
        stopped_early=early,
        best_step=state.best_step,
        train_loss=state.loss_sum / state.weight if state.weight else None,
        eval_loss=state.eval_loss,
    )
    # Last: a run that is killed before it has reported that it is done resumes from one, and so does a later attempt.
    if completed and run.accelerator.is_main_process and not run.folder.superseded.exists():
        prune_states([run.folder], keep=0)


def eta_seconds(steps_since_first: int, steps_left: int, step_seconds: float, since_first: float) -> float:
    """Estimated from the wall time since the first step, including evaluations and checkpoints. The first step is
    slower, so it is not counted."""
    per_step = since_first / steps_since_first if steps_since_first else step_seconds
    return per_step * steps_left
