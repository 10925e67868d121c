"""The loss on held-out examples, and sample answers for people to read."""

import dataclasses
import math
from dataclasses import replace

from contract.events import EvaluationEvent, SampleEvent
from contract.failure import FailureCode, InputError
from trainer.data.end_tokens import end_token_ids
from trainer.data.packing import pack
from trainer.data.tokenizer import load_tokenizer
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
    """The state with the mean loss of the held-out examples; unchanged if a stop was requested meanwhile. Raises
    InputError for a loss that is not finite."""
    loss_sum, stopped = sum_over_ranks(run.accelerator, *_rank_loss_sum(run))
    if stopped:
        return state
    supervised = run.data.evaluation.targets
    loss = loss_sum / supervised
    if not math.isfinite(loss):
        raise InputError(
            FailureCode.LOSS_NOT_FINITE,
            f"step {state.step}: the evaluation loss is {loss}; lower optimizer.learning_rate, or set precision to "
            '"fp32"',
            "optimizer.learning_rate",
        )
    best = state.best_loss is None or loss < state.best_loss
    run.report(EvaluationEvent, step=state.step, eval_loss=loss, supervised_tokens=supervised, best=best)
    _report_samples(run, state.step)
    # Without its samples the evaluation is incomplete; the resumed run repeats it.
    if run.recipe.evaluation.samples and run.stop_requested():
        return state
    return replace(
        state,
        eval_loss=loss,
        eval_step=state.step,
        best_loss=loss if best else state.best_loss,
        best_step=state.step if best else state.best_step,
        evaluations_since_best=0 if best else state.evaluations_since_best + 1,
    )


def _rank_loss_sum(run: TrainingRun) -> tuple[float, bool]:
    """This rank's sum of losses, and whether a stop was requested meanwhile.

    Dropout is off, so no random numbers are used: training continues as if there had been no evaluation.
    """
    run.engine.module.eval()
    total, stopped = 0.0, False
    for micro_batch in run.micro_batches(run.data.evaluation):
        if stopped := run.should_abandon(together=run.engine.shards_parameters):
            break
        total += run.engine.loss_sum(pack(micro_batch).to(run.accelerator.device))
    run.engine.module.train()
    return total, stopped


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
