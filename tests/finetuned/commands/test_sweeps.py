import json
from pathlib import Path
from typing import Any

import pytest

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi


def sweep(*statuses: str, best: int | None = None) -> dict[str, Any]:
    jobs = [
        {
            "id": f"job_{number}",
            "values": {"adapter.r": 8 * number},
            "status": status,
            "loss": None if status == "queued" else 1.5 / number,
            "eval_loss": None,
            "reward_accuracy": None,
            "reward_margin": None,
            "step": None if status == "queued" else 3,
            "total_steps": 9,
        }
        for number, status in enumerate(statuses, start=1)
    ]
    return {
        "id": "sweep_1",
        "name": "search",
        "owner": "anna",
        "created_at": "2026-01-02T03:04:05Z",
        "fields": ["adapter.r"],
        "jobs": jobs,
        "best": None if best is None else f"job_{best}",
    }


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "recipe.json").write_text('{"model": "m"}')
    return str(tmp_path / "recipe.json")


def test_sweep_posts_the_grid_and_prints_the_id(api: FakeApi, recipe: str) -> None:
    api.answers["POST /sweeps"] = (201, sweep("queued", "queued"))
    grid = ["--grid", "optimizer.learning_rate=1e-4,2e-4", "--grid", 'adapter.target_modules=["a","b"],"all-linear"']
    done = finetuned("sweep", recipe, *grid, "--grid", "precision=bf16,fp32", "--name", "search", "--url", api.url)
    assert (done.returncode, done.stdout) == (0, "sweep_1\n")
    assert "2 jobs" in done.stderr
    assert "finetuned sweep show sweep_1" in done.stderr
    assert json.loads(api.bodies[0]) == {
        "recipe": {"model": "m"},
        "name": "search",
        "grid": {
            "optimizer.learning_rate": [1e-4, 2e-4],
            "adapter.target_modules": [["a", "b"], "all-linear"],
            "precision": ["bf16", "fp32"],
        },
    }


def test_sweep_posts_a_list_and_the_recipe_as_they_are_written(api: FakeApi, tmp_path: Path) -> None:
    api.answers["POST /sweeps?force=true"] = (201, sweep("queued"))
    (tmp_path / "list.json").write_text('[{"adapter.r": 8}]')
    arguments = ["--list", str(tmp_path / "list.json"), "--force", "--json", "--url", api.url]
    done = finetuned("sweep", "submit", "-", *arguments, stdin='{"seed": 1, "seed": 2}')
    assert json.loads(done.stdout) == sweep("queued")
    assert api.bodies == [b'{"recipe": {"seed": 1, "seed": 2}, "list": [{"adapter.r": 8}]}']


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "adapter.r"], "--grid: got adapter.r; give FIELD=VALUE,..., such as adapter.r=8,16"),
        (["--grid", "adapter.r="], "--grid: got adapter.r=; give FIELD=VALUE"),
        (["--grid", "seed=1", "--grid", "seed=2"], "--grid: got seed twice; give all its values in one option"),
        (["--grid", "a=all-linear,[1]"], "--grid: got a=all-linear,[1]; write lists and quoted texts as JSON"),
        (["--list", "/no/file"], "cannot read /no/file: No such file or directory"),
    ],
)
def test_option_that_cannot_be_read_is_refused(recipe: str, arguments: list[str], message: str) -> None:
    done = finetuned("sweep", recipe, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(message)


def test_recipe_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{")
    done = finetuned("sweep", str(tmp_path / "recipe.json"), "--grid", "seed=1,2")
    assert (done.returncode, "is not JSON: " in done.stderr) == (1, True)


@pytest.mark.parametrize(("statuses", "code"), [(("succeeded", "succeeded"), 0), (("succeeded", "failed"), 1)])
def test_watched_sweep_ends_with_its_jobs(api: FakeApi, recipe: str, statuses: tuple[str, str], code: int) -> None:
    api.answers["POST /sweeps"] = (201, sweep("running", "queued"))
    api.answers["GET /sweeps/sweep_1"] = (200, sweep(*statuses, best=1))
    done = finetuned("sweep", recipe, "--grid", "adapter.r=8,16", "--watch", "--url", api.url)
    assert (done.returncode, done.stdout) == (code, "sweep_1\n")
    assert done.stderr.splitlines() == [
        "job_1 adapter.r=8: running, loss 1.5000",
        "job_2 adapter.r=16: queued",
        "job_1 adapter.r=8: succeeded, loss 1.5000",
        f"job_2 adapter.r=16: {statuses[1]}, loss 0.7500",
    ]


def test_results_are_a_table_with_the_best_marked(api: FakeApi) -> None:
    api.answers["GET /sweeps/sweep_1"] = (200, sweep("succeeded", "running", "queued", best=2))
    done = finetuned("sweep", "show", "sweep_1", "--url", api.url, COLUMNS="120")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows == [
        ["job", "adapter.r", "status", "step", "loss", "eval", "loss"],
        ["job_1", "8", "succeeded", "3/9", "1.5000"],
        ["*", "job_2", "16", "running", "3/9", "0.7500"],
        ["job_3", "24", "queued"],
    ]
    assert "finetuned download job_2" in done.stderr
    done = finetuned("sweep", "show", "sweep_1", "--json", "--url", api.url)
    assert json.loads(done.stdout)["best"] == "job_2"


def test_results_of_compared_answers_have_their_rewards(api: FakeApi) -> None:
    found = sweep("succeeded", "queued", best=1)
    found["jobs"][0] |= {"eval_loss": 0.5, "reward_accuracy": 0.875, "reward_margin": 1.25}
    api.answers["GET /sweeps/sweep_1"] = (200, found)
    done = finetuned("sweep", "show", "sweep_1", "--url", api.url, COLUMNS="150")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows == [
        ["job", "adapter.r", "status", "step", "loss", "eval", "loss", "reward", "accuracy", "reward", "margin"],
        ["*", "job_1", "8", "succeeded", "3/9", "1.5000", "0.5000", "0.8750", "1.2500"],
        ["job_2", "16", "queued"],
    ]


def test_stopped_run_is_printed_with_its_rewards(api: FakeApi) -> None:
    found = sweep("cancelled")
    found["jobs"][0] |= {"eval_loss": 0.5, "reward_accuracy": 0.875, "reward_margin": 1.25}
    api.answers["POST /sweeps/sweep_1/cancel"] = (200, found)
    done = finetuned("sweep", "stop", "sweep_1", "--url", api.url)
    rewards = "reward accuracy 0.8750, reward margin 1.2500"
    line = f"job_1 adapter.r=8: cancelled, loss 1.5000, evaluation loss 0.5000, {rewards}"
    assert line in done.stderr


def test_sweeps_are_listed_with_their_jobs_by_status(api: FakeApi) -> None:
    found = sweep("succeeded", "running", "running", best=2)
    api.answers["GET /sweeps"] = (200, {"data": [found], "has_more": False})
    done = finetuned("sweep", "list", "--url", api.url, COLUMNS="150")
    assert "sweep_1  search  anna   adapter.r  1 succeeded, 2 running  job_2" in done.stdout
    assert json.loads(finetuned("sweep", "list", "--json", "--url", api.url).stdout) == [found]


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ((), ""),
        (("--keep", "job_1", "--keep", "job_3"), "?keep=job_1&keep=job_3"),
        (("--keep-best",), "?keep=job_2"),
    ],
)
def test_stop_cancels_all_but_what_is_kept(api: FakeApi, options: tuple[str, ...], query: str) -> None:
    api.answers["GET /sweeps/sweep_1"] = (200, sweep("succeeded", "running", "running", best=2))
    api.answers[f"POST /sweeps/sweep_1/cancel{query}"] = (200, sweep("succeeded", "running", "cancelled", best=2))
    done = finetuned("sweep", "stop", "sweep_1", *options, "--url", api.url)
    assert (done.returncode, done.stdout) == (0, "")
    assert ("running jobs save first" in done.stderr) is ("job_2" not in query)


def test_stop_without_a_best_job_stops_nothing(api: FakeApi) -> None:
    api.answers["GET /sweeps/sweep_1"] = (200, sweep("queued"))
    done = finetuned("sweep", "stop", "sweep_1", "--keep-best", "--url", api.url)
    assert (done.returncode, api.bodies) == (1, [])
    assert "no job of the sweep has a loss yet" in done.stderr
