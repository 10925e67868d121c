"""What a run learns from its examples: answers, pairs of answers of which one is better, or rated answers."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from contract.formatting import format_value
from contract.section import Section

MethodType = Literal["sft", "dpo", "orpo", "simpo", "kto"]
Learned = Literal["answers", "pairs", "ratings"]
"""What the rows of a dataset have: an answer to learn, two answers to compare, or an answer with a rating."""

_DEFAULTS: Mapping[MethodType, Mapping[str, Any]] = MappingProxyType(
    {
        "sft": {},
        "dpo": {"beta": 0.1, "loss": "sigmoid", "label_smoothing": 0.0, "sft_weight": 0.0},
        "orpo": {"beta": 0.1},
        "simpo": {"beta": 2.0, "margin": 1.0},
        "kto": {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
    }
)
"""The options of each method, with their defaults."""

_LEARNED: Mapping[MethodType, Learned] = MappingProxyType(
    {"sft": "answers", "dpo": "pairs", "orpo": "pairs", "simpo": "pairs", "kto": "ratings"}
)


LEARNING_RATES: Mapping[MethodType, float] = MappingProxyType(
    {"sft": 2e-4, "dpo": 5e-6, "orpo": 5e-6, "simpo": 5e-6, "kto": 5e-6}
)
"""What a recipe trains at that does not say. What compares answers moves a model much further at the same rate."""


class Method(Section):
    """How the model learns. Each option is one of some methods only; with another it must be left out or null."""

    type: MethodType = "sft"
    """"sft": from answers (supervised fine-tuning). From pairs of answers: "dpo" (Rafailov et al. 2023,
    arXiv:2305.18290), "orpo" (Hong et al. 2024, arXiv:2403.07691) and "simpo" (Meng et al. 2024, arXiv:2405.14734).
    From answers with a rating: "kto" (Ethayarajh et al. 2024, arXiv:2402.01306)."""
    beta: Annotated[float, Field(gt=0, le=1000)] | None = None
    """dpo, kto: how strongly the model is held to the one it starts from, 0.1. orpo: weight of the odds ratio, 0.1.
    simpo: scale of the rewards, 2."""
    loss: Literal["sigmoid", "sigmoid_norm", "ipo"] | None = None
    """dpo: "sigmoid" compares the sums of an answer's log probabilities, "sigmoid_norm" their means per token; "ipo"
    (Azar et al. 2023, arXiv:2310.12036) pulls the difference of the means towards 1 / (2 beta)."""
    label_smoothing: Annotated[float, Field(ge=0, le=0.5)] | None = None
    """dpo: probability that a pair is the wrong way round (Mitchell 2023), 0."""
    sft_weight: Annotated[float, Field(ge=0, le=1000)] | None = None
    """dpo: weight of the better answer's own loss per token (Pang et al. 2024, arXiv:2404.19733), 0."""
    margin: Annotated[float, Field(ge=0, le=1000)] | None = None
    """simpo: by how much the better answer's reward shall be above the other's, 1."""
    desirable_weight: Annotated[float, Field(gt=0, le=1000)] | None = None
    """kto: weight of the answers rated as good, 1."""
    undesirable_weight: Annotated[float, Field(gt=0, le=1000)] | None = None
    """kto: weight of the answers rated as bad, 1."""

    @property
    def learns(self) -> Learned:
        """What each row of the datasets must have."""
        return _LEARNED[self.type]

    @property
    def options(self) -> dict[str, Any]:
        """The options that its type has."""
        return {name: getattr(self, name) for name in _DEFAULTS[self.type]}

    @property
    def documents(self) -> int:
        """How many answers of an example go through the model in a step."""
        return 2 if self.learns == "pairs" else 1

    @property
    def needs_reference(self) -> bool:
        """Whether answers are compared with what the model gives them before training."""
        return self.type in ("dpo", "kto")

    @model_validator(mode="before")
    @classmethod
    def _fill_options(cls, given: Any) -> Any:
        name = given.get("type", "sft") if isinstance(given, dict) else None
        if not isinstance(name, str) or name not in _DEFAULTS:
            return given  # refused for it
        written = {option: value for option, value in given.items() if value is not None}
        return {**_DEFAULTS[cast(MethodType, name)], **written}

    @model_validator(mode="after")
    def _refuse_other_options(self) -> Self:
        options = _DEFAULTS[self.type]
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name != "type" and name not in options and value is not None:
                users = " or ".join(f'"{each}"' for each, has in _DEFAULTS.items() if name in has)
                raise ValueError(
                    f'{name} is {format_value(value)}, and "{self.type}" has no such option: leave it out, '
                    f"or set type to {users}"
                )
        if self.loss == "ipo" and self.label_smoothing:
            raise ValueError(f'label_smoothing is {self.label_smoothing}, which "ipo" has no place for: leave it out')
        return self


def method_from_type(value: Any) -> Any:
    """ "dpo" is short for {"type": "dpo"}."""
    return {"type": value} if isinstance(value, str) else value
