"""The objective of each method."""

import functools

from contract.method import Method
from trainer.methods.dpo import dpo
from trainer.methods.kto import KtoOptions
from trainer.methods.objective import AnswerObjective, Objective
from trainer.methods.orpo import orpo
from trainer.methods.pairs import PairObjective
from trainer.methods.ratings import RatingObjective
from trainer.methods.simpo import simpo


def choose_objective(method: Method) -> Objective:
    match method.type:
        case "dpo":
            return PairObjective(functools.partial(dpo, **method.options))
        case "orpo":
            return PairObjective(functools.partial(orpo, **method.options))
        case "simpo":
            return PairObjective(functools.partial(simpo, **method.options))
        case "kto":
            return RatingObjective(KtoOptions(**method.options))
    return AnswerObjective()
