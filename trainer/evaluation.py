"""The loss on the examples that are held out of training, and answers to some of them for people to read."""

import dataclasses
import math
from dataclasses import replace

from contract.events import Evaluation, Sample
from contract.failure import FailureCode, InputError
from trainer.data.end_tokens import own_ends
from trainer.data.tokenizer import load_tokenizer
from trainer.model.packing import pack
from trainer.ranks import sum_over_ranks
from trainer.run import Run
from trainer.sample import answer_prompts, sample_prompts
from trainer.saving.state import Position


def evaluation_is_due(run: Run, step: int) -> bool:
    """At the start, at the end, and every so often."""
    if not run.data.evaluation:
        return False
    return step == run.total_steps or step % (run.recipe.evaluation.every_steps or run.steps_per_epoch) == 0


def evaluate(run: Run, position: Position) -> Position:
    """With the mean loss of the held-out examples; as it was when asked to stop meanwhile. Raises InputError for a loss
    that is not finite."""
    loss_sum, stopped = sum_over_ranks(run.accelerator, *_own_loss_sum(run))
    if stopped:
        return position
    supervised = run.data.evaluation.targets
    loss = loss_sum / supervised
    if not math.isfinite(loss):
        raise InputError(
            FailureCode.LOSS_NOT_FINITE,
            f"step {position.step}: the evaluation loss is {loss}; lower optimizer.learning_rate, or set precision to "
            '"fp32"',
            "optimizer.learning_rate",
        )
    best = position.best_loss is None or loss < position.best_loss
    run.report(Evaluation, step=position.step, eval_loss=loss, supervised_tokens=supervised, best=best)
    _tell_samples(run, position.step)
    # Without its samples the evaluation is made anew when the run goes on.
    if run.recipe.evaluation.samples and run.asked_to_stop():
        return position
    return replace(
        position,
        eval_loss=loss,
        eval_step=position.step,
        best_loss=loss if best else position.best_loss,
        best_step=position.step if best else position.best_step,
        evaluations_since_best=0 if best else position.evaluations_since_best + 1,
    )


def _own_loss_sum(run: Run) -> tuple[float, bool]:
    """This rank's part, and whether it was asked to stop meanwhile.

    Dropout is off meanwhile, so no random numbers are used: training goes on as if there had been no evaluation.
    """
    run.engine.module.eval()
    total, stopped = 0.0, False
    for micro_batch in run.micro_batches(run.data.evaluation):
        if stopped := run.gives_up(together=run.engine.divides_weights):
            break
        total += run.engine.loss_sum(pack(micro_batch).to(run.accelerator.device))
    run.engine.module.train()
    return total, stopped


def _tell_samples(run: Run, step: int) -> None:
    """All ranks answer alike: it may take longer than NCCL lets the others wait for one of them."""
    wanted = run.recipe.evaluation
    if not wanted.samples:
        return
    module = run.engine.module
    ends = {*own_ends(module.model.get_base_model().generation_config), *run.data.ends}

    def generate(prompt: list[int]) -> list[int]:
        return module.generate(prompt, wanted.sample_tokens, sorted(ends), run.stop, sharded=run.engine.divides_weights)

    answers = answer_prompts(generate, load_tokenizer(run.recipe), sample_prompts(run.data.evaluation, wanted.samples))
    if run.stop.asked:
        return
    for index, answer in enumerate(answers):
        run.report(Sample, step=step, index=index, **dataclasses.asdict(answer))
