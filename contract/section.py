"""What the parts of a recipe have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from contract import patterns

Text = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=patterns.TEXT)]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
