"""The loss on held-out examples, and sample answers for people to read."""

import dataclasses
import math
from dataclasses import replace

from contract.events import EvaluationEvent, SampleEvent
from contract.failure import FailureCode, InputError
from trainer.baseline import measure_baseline
from trainer.data.end_tokens import end_token_ids
from trainer.data.tokenizer import load_tokenizer
from trainer.methods.objective import Score
from trainer.ranks import sum_over_ranks
from trainer.run import TrainingRun
from trainer.sample import answer_prompts, sample_prompts
from trainer.saving.state import TrainerState


def evaluation_is_due(run: TrainingRun, step: int) -> bool:
    """True at the start, at the end and at every evaluation interval."""
    if not run.data.evaluation:
        return False
    return step == run.total_steps or step % (run.recipe.evaluation.every_steps or run.steps_per_epoch) == 0


def evaluate(run: TrainingRun, state: TrainerState) -> TrainerState:
    """The state with the loss of the held-out examples; unchanged if a stop was requested meanwhile. Raises InputError
    for a loss that is not finite."""
    *sums, stopped = sum_over_ranks(run.accelerator, *_rank_sums(run))
    if stopped:
        return state
    objective, supervised = run.engine.module.objective, run.data.evaluation.targets
    weight = objective.weight(len(run.data.evaluation), supervised)
    loss, score = sums[0] / weight, objective.score(sums, weight)
    if not math.isfinite(loss):
        raise InputError(
            FailureCode.LOSS_NOT_FINITE,
            f"step {state.step}: the evaluation loss is {loss}; lower optimizer.learning_rate, or set precision to "
            '"fp32"',
            "optimizer.learning_rate",
        )
    best = is_better(loss, score, state)
    run.report(
        EvaluationEvent,
        step=state.step,
        eval_loss=loss,
        supervised_tokens=supervised,
        best=best,
        **dataclasses.asdict(score),
    )
    _report_samples(run, state.step)
    # Without its samples the evaluation is incomplete; the resumed run repeats it.
    if run.recipe.evaluation.samples and run.stop_requested():
        return state
    return replace(
        state,
        eval_loss=loss,
        eval_accuracy=score.reward_accuracy,
        eval_margin=score.reward_margin,
        eval_step=state.step,
        best_loss=loss if best else state.best_loss,
        best_accuracy=score.reward_accuracy if best else state.best_accuracy,
        best_margin=score.reward_margin if best else state.best_margin,
        best_step=state.step if best else state.best_step,
        evaluations_since_best=0 if best else state.evaluations_since_best + 1,
    )


def is_better(loss: float, score: Score, state: TrainerState) -> bool:
    """Whether an evaluation is better than all before. Rewards are compared by their accuracy, and where that is equal
    by their margin; a model without rewards by its loss."""
    if state.best_loss is None:
        return True
    if score.reward_accuracy is None:
        return loss < state.best_loss
    found = score.reward_accuracy, score.reward_margin or 0.0
    return found > (state.best_accuracy or 0.0, state.best_margin or 0.0)


def _rank_sums(run: TrainingRun) -> list[float]:
    """This rank's sums, and 1 if a stop was requested meanwhile, else 0.

    Dropout is off, so no random numbers are used: training continues as if there had been no evaluation.
    """
    run.engine.module.eval()
    baseline = measure_baseline(run, run.data.evaluation)
    totals, stopped = [0.0] * run.engine.module.objective.sums, False
    for micro_batch in run.micro_batches(run.data.evaluation):
        if stopped := run.should_abandon(together=run.engine.shards_parameters):
            break
        found = run.engine.sums(run.pack(micro_batch, baseline)).tolist()
        totals = [total + each for total, each in zip(totals, found, strict=True)]
    run.engine.module.train()
    return [*totals, float(stopped)]


def _report_samples(run: TrainingRun, step: int) -> None:
    """All ranks generate the same answers: waiting for one rank could take longer than NCCL's timeout."""
    settings = run.recipe.evaluation
    if not settings.samples:
        return
    module = run.engine.module
    ends = {*end_token_ids(module.model.get_base_model().generation_config), *run.data.ends}

    def generate(prompt: list[int]) -> list[int]:
        return module.generate(
            prompt, settings.sample_tokens, sorted(ends), run.stop, sharded=run.engine.shards_parameters
        )

    answers = answer_prompts(
        generate, load_tokenizer(run.recipe), sample_prompts(run.data.evaluation, settings.samples)
    )
    if run.stop.requested:
        return
    for index, answer in enumerate(answers):
        run.report(SampleEvent, step=step, index=index, **dataclasses.asdict(answer))
