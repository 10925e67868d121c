"""The tasks of a sandboxed process: what each needs, and the type of its answer."""

from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from contract.failure import Failure
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import ExampleCount
from dataset.dataset_report import DatasetReport
from dataset.held_out import FoundExample
from dataset.lengths import TokenLengths
from dataset.preview import Preview
from dataset.trial import Trial

Answer = TypeVar("Answer", bound=BaseModel)


class Task(BaseModel, Generic[Answer]):
    file: DatasetFile

    def parse(self, answer: Any) -> Answer:
        """The answer from its JSON value."""
        raise NotImplementedError


class CheckFile(Task[DatasetReport]):
    kind: Literal["check"] = "check"
    max_bytes: int | None

    def parse(self, answer: Any) -> DatasetReport:
        return DatasetReport.model_validate(answer)


class CountExamples(Task[ExampleCount]):
    kind: Literal["count"] = "count"
    max_bytes: int | None

    def parse(self, answer: Any) -> ExampleCount:
        return ExampleCount.model_validate(answer)


class TokenizerRef(BaseModel):
    """A model's tokenizer, with its own chat template or a named one."""

    folder: Path
    chat_template: str | None


class MeasureLengths(Task[TokenLengths]):
    kind: Literal["measure"] = "measure"
    tokenizer: TokenizerRef
    max_seconds: float

    def parse(self, answer: Any) -> TokenLengths:
        return TokenLengths.model_validate(answer)


class PreviewExamples(Task[Preview]):
    kind: Literal["preview"] = "preview"
    tokenizer: TokenizerRef
    max_length: int
    offset: int
    limit: int

    def parse(self, answer: Any) -> Preview:
        return Preview.model_validate(answer)


class FindExample(Task[FoundExample]):
    kind: Literal["find"] = "find"
    index: int

    def parse(self, answer: Any) -> FoundExample:
        return FoundExample.model_validate(answer)


class TryExamples(Task[Trial]):
    kind: Literal["try"] = "try"
    tokenizer: TokenizerRef
    embeddings: int | None
    """Rows of the model's embedding table, if known."""

    def parse(self, answer: Any) -> Trial:
        return Trial.model_validate(answer)


AnyTask = CheckFile | CountExamples | FindExample | MeasureLengths | PreviewExamples | TryExamples


class TaskRequest(BaseModel):
    """What the process reads from stdin."""

    task: Annotated[AnyTask, Field(discriminator="kind")]
    seconds: float
    """Wall time of the task; its CPU time is limited to four times as much."""


class TaskResponse(BaseModel):
    """What the process writes to stdout: an answer or a failure."""

    answer: Any = None
    failure: Failure | None = None
