"""The part of a recipe that says where its run is tracked besides here."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from contract import patterns
from contract.section import Section

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=patterns.TEXT)]
SecretName = Annotated[str, StringConstraints(pattern=patterns.SECRET)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=patterns.URL)]
TagKey = Annotated[str, StringConstraints(pattern=patterns.TAG_KEY)]
WandbTag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=patterns.TEXT)]
TagValue = Annotated[str, StringConstraints(max_length=1000, pattern=patterns.TEXT)]


class MlflowTracking(Section):
    url: Url
    """Address of the MLflow server, such as "https://mlflow.example.com"."""
    experiment: Name = "finetuned"
    """Name of the experiment; one that does not exist is created."""
    run_name: Name | None = None
    """Name of the run; null is the job's name, or else its id."""
    tags: Annotated[dict[TagKey, TagValue], Field(max_length=50)] = Field(default={})
    """Tags of the run, besides those of the job."""
    username: Name | None = None
    """User of a server that asks for a user and a password; `secret` then names the password."""
    secret: SecretName | None = None
    """Name of the stored secret with the server's token, or with the password of `username`."""

    @model_validator(mode="after")
    def _check_username(self) -> Self:
        if self.username is not None and self.secret is None:
            raise ValueError("username needs secret, the name of the stored secret with the password")
        return self


class WandbTracking(Section):
    project: Annotated[str, StringConstraints(pattern=patterns.WANDB_NAME)]
    """Name of the project; one that does not exist is created."""
    entity: Annotated[str, StringConstraints(pattern=patterns.WANDB_NAME)] | None = None
    """The user or team that the project belongs to; null is the default one of the API key."""
    run_name: Name | None = None
    """Name of the run; null is the job's name, or else its id."""
    tags: Annotated[list[WandbTag], Field(max_length=50)] = Field(default=[])
    """Tags of the run."""
    secret: SecretName = "wandb"
    """Name of the stored secret with the API key."""


class Tracking(Section):
    mlflow: MlflowTracking | None = None
    """An MLflow server that gets the run."""
    wandb: WandbTracking | None = None
    """The project in Weights & Biases that gets the run."""
    tensorboard: bool = False
    """Whether the job gets an artifact with TensorBoard's event file."""

    @property
    def places(self) -> "dict[str, MlflowTracking | WandbTracking]":
        """The trackers that get the run while it goes on, by the names of their fields."""
        both = {"mlflow": self.mlflow, "wandb": self.wandb}
        return {name: place for name, place in both.items() if place is not None}
