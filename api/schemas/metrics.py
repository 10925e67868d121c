from pydantic import BaseModel


class Evaluations(BaseModel):
    step: list[int]
    eval_loss: list[float]


class Metrics(BaseModel):
    job_id: str
    columns: dict[str, list[float | bool | None]]
    """One list per column, all of one length, by step."""
    evaluations: Evaluations


class Sample(BaseModel):
    step: int
    index: int
    """Of the prompt, from 0: the same ones at every evaluation."""
    prompt: str
    expected: str
    generated: str


class SampleList(BaseModel):
    data: list[Sample]
