"""Evaluations on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from contract.failure import Failure
from contract.recipe import DatasetSource, dataset_from_path
from store.models import JobEvaluation


class EvaluationIn(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    dataset: Annotated[DatasetSource, BeforeValidator(dataset_from_path, json_schema_input_type=str | DatasetSource)]
    """The examples, given like a recipe's evaluation.dataset: the id of a dataset, a path, or an object with more
    settings. They are rendered with the chat template of the job."""
    checkpoint: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """The step of one of the job's checkpoints; null is its adapter."""
    limit: Annotated[int, Field(ge=1, le=10_000)] = 200
    """The first so many examples of the file are evaluated."""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 256
    """Most tokens of an answer."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """0 always takes the most likely token."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Of the answers, where the temperature is above 0."""

    @field_validator("dataset")
    @classmethod
    def _has_no_template(cls, given: DatasetSource) -> DatasetSource:
        if given.chat_template is not None:
            raise ValueError("is rendered with the chat template of the job; leave chat_template out")
        return given


class EvaluatedDataset(BaseModel):
    path: str
    """The id of a dataset, or a path on the server."""
    filename: str | None
    format: str
    columns: dict[str, str] | None
    chat_template: str | None
    """The job's; null is the model's own."""
    sha256: str
    """Evaluations on the same bytes have the same."""


class ModelScores(BaseModel):
    loss: float
    """Mean over all supervised tokens, in nats, as in the job's own evaluation."""
    perplexity: float | None
    """e to the power of the loss; null where that is beyond all numbers."""
    exact_match: float
    """Share of the answers that equal the reference answer, but for white space."""
    token_f1: float
    """Mean F1 of the words that an answer and the reference answer have in common."""
    rouge_l: float
    """Mean F1 of their longest common subsequence of words."""


class Scores(BaseModel):
    examples: int
    """Number of examples that were scored."""
    supervised_tokens: int
    base: ModelScores
    adapter: ModelScores


class EvaluationSettings(BaseModel):
    """Scores of evaluations with the same dataset and settings can be compared."""

    limit: int
    max_length: int
    """The job's batch.max_length: longer examples are cut, as in training."""
    max_new_tokens: int
    temperature: float
    seed: int


class EvaluationOut(BaseModel):
    id: str
    job_id: str
    checkpoint: int | None
    """Null is the job's adapter."""
    dataset: EvaluatedDataset
    settings: EvaluationSettings
    status: Literal["queued", "running", "succeeded", "failed"]
    waits: str | None
    """For people: why a queued one could not go on when a worker tried."""
    examples: int
    """Number of examples to evaluate."""
    done: int
    """Number of examples that are done."""
    dropped: int | None
    """Number of these with nothing to learn within max_length, which are left out; null before the end."""
    scores: Scores | None
    attempt: int
    worker: str | None
    artifact: str | None
    """Name of the file of all rows among the job's artifacts."""
    failure: Failure | None
    created_at: datetime
    finished_at: datetime | None


class EvaluationPage(BaseModel):
    data: list[EvaluationOut]
    has_more: bool


class EvaluatedAnswer(BaseModel):
    answer: str
    finish: Literal["stop", "length"]
    """Whether the model ended the answer itself."""
    loss: float
    exact_match: float
    token_f1: float
    rouge_l: float


class EvaluatedRowOut(BaseModel):
    number: int
    """Position of the example in the file, from 1."""
    prompt: str
    """What comes before the example's last answer; the last 4,000 characters of it."""
    reference: str
    """That answer, as far as max_length leaves it."""
    supervised_tokens: int
    base: EvaluatedAnswer
    adapter: EvaluatedAnswer


class EvaluatedRows(BaseModel):
    data: list[EvaluatedRowOut]
    has_more: bool


def evaluation_out(evaluation: JobEvaluation) -> EvaluationOut:
    facts: dict[str, Any] = {name: getattr(evaluation, name, None) for name in EvaluationOut.model_fields}
    is_checkpoint = evaluation.source.startswith("checkpoint-")
    return EvaluationOut.model_validate(facts | {"checkpoint": evaluation.step if is_checkpoint else None})
