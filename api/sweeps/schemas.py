from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from contract import patterns
from contract.status import JobStatus
from store import sweeps
from store.models import Sweep
from store.sweeps import SweepRun

Grid = Annotated[dict[str, list[Any]], Field(examples=[{"adapter.r": [8, 16]}])]
Entries = Annotated[list[dict[str, Any]], Field(examples=[[{"adapter.r": 8}, {"adapter.r": 16}]])]


class NewSweep(BaseModel):
    """Give `grid` or `list`, not both."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=patterns.TEXT)] | None = None
    """A name for people; null is the recipe's. The jobs have it in their names."""
    recipe: dict[str, Any]
    """The recipe that all jobs start from. Fields that the sweep sets may be left out, also required ones."""
    grid: Grid | None = None
    """Values to try, by the dotted path of the recipe's field. There is a job for each combination; the first field
    changes slowest."""
    list: Entries | None = None
    """The values of each job, by the dotted path of the recipe's field."""


class SweepRunOut(BaseModel):
    id: str
    """Id of the job."""
    values: dict[str, Any]
    """What the sweep set in its recipe, by the path of the field."""
    status: JobStatus
    loss: float | None
    """Loss of the last step."""
    eval_loss: float | None
    """Loss of the last evaluation."""
    reward_accuracy: float | None
    """Of the last evaluation; null for a method without rewards."""
    reward_margin: float | None
    """Of the last evaluation; null for a method without rewards."""
    step: int | None
    total_steps: int | None


class SweepOut(BaseModel):
    id: str
    name: str | None
    owner: str
    created_at: datetime
    fields: list[str]
    """Paths of the recipe's fields that it sets."""
    jobs: list[SweepRunOut]
    """In the order they were written. Deleted jobs are left out."""
    best: str | None
    """Id of the best job among those that have succeeded or are running: the one with the highest reward_accuracy, and
    among equals the largest reward_margin. Where no job has rewards, it is the one with the lowest eval_loss, and where
    none was evaluated, with the lowest loss."""


class SweepPage(BaseModel):
    data: list[SweepOut]
    has_more: bool


def sweep_out(sweep: Sweep, runs: list[SweepRun]) -> SweepOut:
    return SweepOut(
        id=sweep.id,
        name=sweep.name,
        owner=sweep.owner,
        created_at=sweep.created_at,
        fields=sweep.fields,
        jobs=[SweepRunOut.model_validate(run, from_attributes=True) for run in runs],
        best=sweeps.best(runs),
    )
