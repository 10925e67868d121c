"""The recipes of a sweep: one for each point of a grid or entry of a list, all parsed before any is used."""

import copy
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from api.errors import InvalidParameter
from api.sweeps.schemas import NewSweep
from contract.failure import FailureCode, InputError
from contract.formatting import format_value, truncate
from contract.recipe import Recipe
from contract.recipe_errors import parse_recipe

MOST_RUNS = 100
_LONGEST_PATH = 200
"""More than any has; it bounds how deep a path goes."""
_LONGEST_NAME = 200
"""Of a job."""
_LONGEST_VALUE = 40
"""In a job's name."""


@dataclass(frozen=True)
class Choice:
    """A value that a sweep gives to a field of one run."""

    path: str
    """The dotted path of the recipe's field."""
    value: Any
    field: str
    """Where the request names the field, such as "grid.adapter.r"."""
    index: str = ""
    """Which of the field's values this is, such as "[1]"; empty for a list, where `field` says it."""


@dataclass(frozen=True)
class Run:
    choices: Sequence[Choice]
    entry: str
    """Where the request has the run as a whole: "list[3]"; empty for a grid."""

    @property
    def values(self) -> dict[str, Any]:
        return {choice.path: choice.value for choice in self.choices}

    @property
    def label(self) -> str:
        """Such as "adapter.r=8 precision=bf16"."""
        return " ".join(f"{choice.path}={_short(choice.value)}" for choice in self.choices)

    @property
    def where(self) -> str:
        """Where the request has what makes this run: "grid.adapter.r[0]", "list[3]"."""
        return self.entry or ", ".join(choice.field + choice.index for choice in self.choices)


@dataclass(frozen=True)
class SweepRecipe:
    run: Run
    recipe: Recipe


def expand(new: NewSweep) -> list[SweepRecipe]:
    """The recipe of each run, in the order they were written. Raises InvalidParameter, InputError."""
    expanded: list[SweepRecipe] = []
    seen: dict[str, Run] = {}
    for run in _runs(new):
        _check_paths(run)
        recipe = _parse(new.recipe, run)
        same = recipe.model_dump_json(exclude={"name"})
        if same in seen:
            raise _repeated(run, seen[same])
        seen[same] = run
        recipe = recipe.model_copy(update={"name": _name(new.name or recipe.name, run)})
        expanded.append(SweepRecipe(run, recipe))
    return expanded


def _runs(new: NewSweep) -> list[Run]:
    match new.grid, new.list:
        case dict() as grid, None:
            return _points(grid)
        case None, list() as entries:
            _check_count("list", len(entries))
            return [
                Run([Choice(path, value, f"list[{number}].{path}") for path, value in entry.items()], f"list[{number}]")
                for number, entry in enumerate(entries)
            ]
        case None, None:
            raise InvalidParameter("grid", None, 'give the values of each field, such as {"adapter.r": [8, 16]}')
    raise InvalidParameter("list", new.list, "a sweep has a grid or a list; leave one of them out")


def _points(grid: Mapping[str, list[Any]]) -> list[Run]:
    for path, values in grid.items():
        if not values:
            raise InvalidParameter(f"grid.{truncate(path)}", values, "give at least one value, or leave the field out")
    _check_count("grid", math.prod(map(len, grid.values())) if grid else 0)
    axes = [
        [Choice(path, value, f"grid.{path}", f"[{index}]") for index, value in enumerate(values)]
        for path, values in grid.items()
    ]
    return [Run(point, "") for point in itertools.product(*axes)]


def _check_count(param: str, count: int) -> None:
    if not 1 <= count <= MOST_RUNS:
        raise InvalidParameter(param, count, f"a sweep has 1 to {MOST_RUNS} runs")


def _check_paths(run: Run) -> None:
    paths = [choice.path for choice in run.choices]
    for choice in run.choices:
        above = next((path for path in paths if choice.path.startswith(f"{path}.")), None)
        if len(choice.path) > _LONGEST_PATH:
            wanted = f"a path has at most {_LONGEST_PATH} characters"
            raise InvalidParameter(truncate(choice.field), choice.value, wanted)
        if choice.path == "name":
            wanted = "jobs are named after their values; give the sweep's name in name"
            raise InvalidParameter(choice.field, choice.value, wanted)
        if above is not None:
            wanted = f"the sweep sets {above} as a whole too; give one of them"
            raise InvalidParameter(choice.field, choice.value, wanted)


def _parse(recipe: Mapping[str, Any], run: Run) -> Recipe:
    made = copy.deepcopy(dict(recipe))
    for choice in run.choices:
        _set(made, choice)
    with errors_located(run):
        return parse_recipe(json.dumps(made))


def _set(recipe: dict[str, Any], choice: Choice) -> None:
    """Sets a field, also one that the recipe gives. A section that is absent is made, and so is a dataset's that is
    given by its path alone."""
    *sections, name = choice.path.split(".")
    inside = recipe
    for depth, section in enumerate(sections, start=1):
        within = inside.get(section)
        if isinstance(within, str) and section == "dataset":
            inside[section] = {"path": within}
        elif within is None:
            inside[section] = {}
        elif not isinstance(within, dict):
            path = ".".join(sections[:depth])
            message = f"recipe.{path}: got {format_value(within)}; {choice.field} needs a JSON object there"
            raise InputError(FailureCode.RECIPE_INVALID, message, f"recipe.{path}")
        inside = inside[section]
    inside[name] = choice.value


@contextmanager
def errors_located(run: Run) -> Iterator[None]:
    """Re-raises an InputError about a field of the run's recipe as one about the request's field that it came from."""
    try:
        yield
    except InputError as error:
        failure = error.failure
        if failure.param is None:
            raise InputError(failure.code, f"{run.where}: {failure.message}") from error
        problem = failure.message.removeprefix(f"{failure.param}: ")
        place = _place(run, failure.param, unknown=problem.startswith("unknown field"))
        first = f"; the first run with this is {run.label}" if place.startswith("recipe.") and run.choices else ""
        raise InputError(failure.code, f"{place}: {problem}{first}", place) from error


def _place(run: Run, param: str, unknown: bool) -> str:
    """Where the request has a recipe's field: in the value that sets the field or a section around it, else in the one
    value inside of it, else in the recipe."""
    for choice in run.choices:
        if param == choice.path and unknown:
            return choice.field
        if param == choice.path or param.startswith(f"{choice.path}."):
            return choice.field + choice.index + param.removeprefix(choice.path)
    inside = [choice for choice in run.choices if choice.path.startswith(f"{param}.")]
    if len(inside) == 1:
        return inside[0].field + ("" if unknown else inside[0].index)
    return f"recipe.{param}"


def _repeated(run: Run, earlier: Run) -> InvalidParameter:
    differing: list[tuple[str, str, Any]] = [
        (mine.field + mine.index, its.field + its.index, mine.value)
        for mine, its in zip(run.choices, earlier.choices, strict=False)
        if mine != its
    ]
    if run.entry or len(differing) != 1:
        mine, its, value = run.where, earlier.where, run.values
    else:
        ((mine, its, value),) = differing
    return InvalidParameter(mine, value, f"this is the same recipe as {its}; give each once")


def _name(name: str | None, run: Run) -> str | None:
    words = " ".join(filter(None, [name, run.label]))
    return (words if len(words) <= _LONGEST_NAME else f"{words[: _LONGEST_NAME - 3]}...") or None


def _short(value: Any) -> str:
    if isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_VALUE:
        return value
    return format_value(value, _LONGEST_VALUE)
