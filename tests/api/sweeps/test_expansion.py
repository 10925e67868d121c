"""From a grid or a list to recipes, without a service."""

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import InvalidParameter
from api.sweeps.expansion import MOST_RUNS, expand
from api.sweeps.schemas import NewSweep
from contract.failure import InputError
from tests.support.jobs import RECIPE, make_recipe

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "adapter.r": st.integers(1, 64),
    "adapter.dropout": st.floats(0, 0.5),
    "adapter.target_modules": st.sampled_from(["all-linear", ["q_proj"], ["q_proj", "v_proj"]]),
    "optimizer.learning_rate": st.floats(1e-6, 1e-2),
    "precision": st.sampled_from(["auto", "bf16", "fp32"]),
    "seed": st.integers(0, 1000),
    "dataset.chat_template": st.sampled_from(["chatml", "alpaca", "plain"]),
}


@st.composite
def grids(draw: st.DrawFn) -> dict[str, list[Any]]:
    paths = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3, unique=True))
    return {path: draw(st.lists(VALUES[path], min_size=1, max_size=4, unique_by=str)) for path in paths}


def recipes(**sweep: Any) -> list[dict[str, Any]]:
    return [each.recipe.model_dump(mode="json") for each in expand(NewSweep(recipe=RECIPE, **sweep))]


def at(recipe: Any, path: str) -> Any:
    for part in path.split("."):
        recipe = recipe[part]
    return recipe


def leaves(recipe: Any, path: str = "") -> dict[str, Any]:
    """Every value that is no section, by its path."""
    if not isinstance(recipe, dict) or not recipe:
        return {path: recipe}
    below = (leaves(value, f"{path}.{name}".lstrip(".")) for name, value in recipe.items())
    return {name: value for part in below for name, value in part.items()}


@given(grids())
def test_grid_has_each_combination_once_in_order(grid: dict[str, list[Any]]) -> None:
    made = recipes(grid=grid)
    assert len(made) == math.prod(map(len, grid.values()))
    points = [[grid[path].index(at(recipe, path)) for path in grid] for recipe in made]
    assert points == sorted(points)
    assert len({*map(tuple, points)}) == len(points)


@given(grids())
def test_run_differs_from_the_recipe_only_where_it_says(grid: dict[str, list[Any]]) -> None:
    for each in expand(NewSweep(recipe=RECIPE, grid=grid)):
        plain = make_recipe().model_dump(mode="json")
        made = each.recipe.model_dump(mode="json")
        values = {path: at(made, path) for path in grid}
        assert leaves(made) == leaves(plain) | values | {"name": each.recipe.name}


@given(grids())
def test_grid_and_list_of_its_points_are_the_same_sweep(grid: dict[str, list[Any]]) -> None:
    values = [each.run.values for each in expand(NewSweep(recipe=RECIPE, grid=grid))]
    assert recipes(list=values) == recipes(grid=grid)


def test_values_of_the_sweep_replace_those_of_the_recipe() -> None:
    stored = make_recipe(adapter={"r": 4, "alpha": 8}).model_dump(mode="json")
    made = expand(NewSweep(recipe=stored, grid={"adapter.r": [8, 16]}))
    assert [(each.recipe.adapter.r, each.recipe.adapter.alpha) for each in made] == [(8, 8), (16, 8)]


def test_required_field_may_come_from_the_sweep_alone() -> None:
    made = expand(NewSweep(recipe={"dataset": "rows.jsonl"}, grid={"model": ["one", "two"]}))
    assert [each.recipe.model for each in made] == ["one", "two"]


def test_section_may_be_swept_as_a_whole() -> None:
    entries: list[dict[str, Any]] = [{}, {"schedule": {"max_steps": 5}}, {"evaluation.dataset.path": "more.jsonl"}]
    plain, short, evaluated = expand(NewSweep(recipe=RECIPE, list=entries))
    assert (plain.run.values, short.recipe.schedule.max_steps) == ({}, 5)
    assert evaluated.recipe.evaluation.dataset is not None


@pytest.mark.parametrize(
    ("name", "recipe_name", "named"),
    [
        ("search", None, "search adapter.r=8 precision=fp32"),
        (None, "base", "base adapter.r=8 precision=fp32"),
        ("search", "base", "search adapter.r=8 precision=fp32"),
        (None, None, "adapter.r=8 precision=fp32"),
        ("x" * 190, None, "x" * 190 + " adapte..."),
    ],
)
def test_runs_are_named_after_the_sweep_and_their_values(name: str | None, recipe_name: str | None, named: str) -> None:
    recipe = {**RECIPE, "name": recipe_name}
    grid: dict[str, list[Any]] = {"adapter.r": [8], "precision": ["fp32"]}
    (made,) = expand(NewSweep(name=name, recipe=recipe, grid=grid))
    assert made.recipe.name == named


TOO_MANY = {"seed": [*range(11)], "adapter.r": [*range(1, 11)]}


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({}, 'grid: got null; give the values of each field, such as {"adapter.r": [8, 16]}'),
        ({"grid": {}}, "grid: got 0; a sweep has 1 to 100 runs"),
        ({"list": []}, "list: got 0; a sweep has 1 to 100 runs"),
        ({"grid": {"seed": [1]}, "list": []}, "list: got []; a sweep has a grid or a list; leave one of them out"),
        ({"grid": {"seed": [1], "adapter.r": []}}, "grid.adapter.r: got []; give at least one value, or leave the"),
        ({"grid": TOO_MANY}, "grid: got 110; a sweep has 1 to 100 runs"),
        ({"grid": {"name": ["a"]}}, 'grid.name: got "a"; jobs are named after their values; give the sweep\'s name'),
        ({"list": [{"name": "a"}]}, 'list[0].name: got "a"; jobs are named'),
        ({"grid": {"." * 201: [1]}}, f"grid.{'.' * 72}...: got 1; a path has at most 200 characters"),
        (
            {"grid": {"adapter": [{"r": 8}], "adapter.r": [16]}},
            "grid.adapter.r: got 16; the sweep sets adapter as a whole too; give one of them",
        ),
        (
            {"grid": {"seed": [1, 2, 1]}},
            "grid.seed[2]: got 1; this is the same recipe as grid.seed[0]; give each once",
        ),
        (
            {"grid": {"optimizer.learning_rate": [1, 1.0]}},
            "grid.optimizer.learning_rate[1]: got 1.0; this is the same recipe as grid.optimizer.learning_rate[0]",
        ),
        ({"list": [{"adapter.r": 16}, {}]}, "list[1]: got {}; this is the same recipe as list[0]; give each once"),
    ],
)
def test_sweep_that_is_none_is_refused(sweep: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        expand(NewSweep(recipe=RECIPE, **sweep))
    assert str(refused.value).startswith(message)
    assert refused.value.param == message.partition(": ")[0]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"grid": {"adapter.r": [8, 0]}}, "grid.adapter.r[1]: got 0; input should be greater than or equal to 1"),
        ({"list": [{"seed": 1}, {"adapter.r": "8"}]}, 'list[1].adapter.r: got "8"; input should be a valid integer'),
        ({"grid": {"adapter.rank": [8]}}, "grid.adapter.rank: unknown field; "),
        ({"grid": {"adaptor.r": [8]}}, "grid.adaptor.r: unknown field; did you mean adapter? "),
        ({"grid": {"adapter": [{"r": 8}, {"r": 0}]}}, "grid.adapter[1].r: got 0; "),
        ({"grid": {"adapter.r.x": [8]}}, "grid.adapter.r.x[0]: got "),
        ({"grid": {"dataset.path.x": [8]}}, 'recipe.dataset.path: got "rows.jsonl"; grid.dataset.path.x needs a JSON'),
        (
            {"grid": {"base_bits": [None, 4], "adapter.init": ["pissa"]}},
            'grid.adapter.init[0]: got "pissa", which changes the base; base_bits keeps it as it is',
        ),
        (
            {"grid": {"schedule.warmup_steps": [5, 10]}, "recipe": {**RECIPE, "schedule": {"warmup_ratio": 0.1}}},
            "grid.schedule.warmup_steps[0]: give warmup_ratio or warmup_steps, not both",
        ),
        (
            {"grid": {"seed": [5]}, "recipe": {**RECIPE, "precision": "fp4"}},
            'recipe.precision: got "fp4"; ',
        ),
        (
            {"grid": {"base_bits": [None, 4]}, "recipe": {**RECIPE, "adapter": {"init": "pissa"}}},
            'recipe.adapter.init: got "pissa", which changes the base; base_bits keeps it as it is; '
            "the first run with this is base_bits=4",
        ),
    ],
)
def test_invalid_recipe_is_refused_at_the_value_that_makes_it_so(sweep: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        expand(NewSweep(**{"recipe": RECIPE, **sweep}))
    assert refused.value.failure.message.startswith(message)
    assert refused.value.failure.param == message.partition(": ")[0]


@given(st.dictionaries(st.text(max_size=20), st.lists(st.none() | st.integers() | st.text(max_size=5), max_size=3)))
def test_any_grid_is_expanded_or_refused(grid: dict[str, list[Any]]) -> None:
    with suppress(InvalidParameter, InputError):
        assert 1 <= len(expand(NewSweep(recipe=RECIPE, grid=grid))) <= MOST_RUNS
