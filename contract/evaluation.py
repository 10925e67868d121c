"""What an inference server is asked for an evaluation, and what it answers: `POST /evaluations` takes an
EvaluationRequest and gives one JSON object in each line, as contract.inference describes it: EvaluatedExamples in the
order of the file, then an EvaluationEnd. A Refusal may come in the place of any of them, and is the last line then."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from contract.inference import Alive, Refusal
from contract.recipe import DatasetSource
from contract.section import Section

EVALUATIONS = "/evaluations"


class EvaluationRequest(Section):
    adapter: str
    """Absolute folder of the adapter, which is compared with the base model."""
    dataset: DatasetSource
    """With an absolute path, its digest, and the chat template of the adapter's training."""
    after: int
    """Number of the last example that is known already, from 1; 0 without any."""
    limit: int
    """The first so many examples of the file are evaluated."""
    max_length: int
    """Most tokens of an example, as in training."""
    max_new_tokens: int
    temperature: float
    seed: int


class ModelAnswer(Section):
    loss: float
    """Mean loss of the example's supervised tokens, in nats."""
    answer: str
    finish: Literal["stop", "length"]
    """Whether the model ended the answer, or was stopped at max_new_tokens or at the end of its context."""


class EvaluatedExample(Section):
    type: Literal["example"] = "example"
    number: int
    """Position in the file, from 1."""
    prompt: str
    """What comes before the last answer of the example, without special tokens; the end of a long one."""
    reference: str
    """That answer."""
    supervised_tokens: int
    """Number of tokens that the losses are of: those of all answers of the example."""
    base: ModelAnswer
    adapter: ModelAnswer


class EvaluationEnd(Section):
    type: Literal["end"] = "end"
    dropped: int
    """Number of examples that have nothing to learn within max_length, and are left out as in training."""


EvaluationLine = Annotated[Alive | EvaluatedExample | EvaluationEnd | Refusal, Field(discriminator="type")]
EVALUATION_LINE: TypeAdapter[EvaluationLine] = TypeAdapter(EvaluationLine)
