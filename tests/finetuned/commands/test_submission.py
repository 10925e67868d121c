import json
from pathlib import Path

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi, job

ROOT = Path(__file__).parents[3]


def test_set_changes_fields_of_the_recipe(api: FakeApi) -> None:
    api.answers["POST /jobs"] = (201, job())
    changes = ("--set", "schedule.epochs=3", "--set", "name=a name", "--set", 'adapter.target_modules=["q"]')
    done = finetuned(
        "submit", "-", *changes, "--json", "--url", api.url, stdin='{"model": "m", "schedule": {"epochs": 1}}'
    )
    assert json.loads(done.stdout)["id"] == "job_1"
    assert json.loads(api.bodies[0]) == {
        "model": "m", "schedule": {"epochs": 3}, "name": "a name", "adapter": {"target_modules": ["q"]}
    }  # fmt: skip


def test_wrong_set_is_refused_by_name(api: FakeApi) -> None:
    done = finetuned("submit", "-", "--set", "epochs", "--url", api.url, stdin="{}")
    assert (done.returncode, done.stderr) == (1, "--set: got epochs; give PATH=VALUE, such as schedule.epochs=3\n")
    done = finetuned("submit", "-", "--set", "model.size=3", "--url", api.url, stdin='{"model": "m"}')
    assert (done.returncode, done.stderr) == (1, "--set: got model.size=3; model is no section of the recipe\n")
    assert api.bodies == []


def test_editor_comes_back_until_the_recipe_is_accepted(api: FakeApi, tmp_path: Path) -> None:
    api.answers["GET /jobs/job_1"] = (200, job() | {"recipe": {"model": "m", "seed": 1}})
    api.answers["POST /jobs"] = (201, job())
    editor = tmp_path / "editor"
    # First it spoils the JSON, then a value, then it mends both.
    editor.write_text(
        "#!/bin/sh\n"
        f"cat $1 >> {tmp_path}/seen\n"
        "grep -q JSON $1 && { echo '{\"model\": 0}' > $1; exit; }\n"
        'grep -q wrong $1 && { echo \'{"model": "n"}\' > $1; exit; }\n'
        "echo '{' > $1\n"
    )
    editor.chmod(0o755)
    error = {"error": {"code": "recipe_invalid", "message": "model: wrong", "param": "model"}}
    api.busy = [(200, {}, job() | {"recipe": {"model": "m", "seed": 1}}), (422, {}, error)]
    done = finetuned("clone", "job_1", "--edit", "--url", api.url, EDITOR=str(editor))
    assert (done.returncode, done.stdout) == (0, "job_1\n"), done.stderr
    assert [json.loads(body) for body in api.bodies] == [{"model": 0}, {"model": "n"}]
    assert "// model: wrong\n" in (tmp_path / "seen").read_text()


def answer_two_jobs(api: FakeApi, **progress: float) -> None:
    for number, rate in ((1, 1e-4), (2, 2e-4)):
        recipe = {"model": "m", "optimizer": {"learning_rate": rate}}
        given = {"id": f"job_{number}", "recipe": recipe, "progress": {"step": 2, "loss": 1.0} | progress}
        api.answers[f"GET /jobs/job_{number}"] = (200, job() | given)
        metrics = {"columns": {"step": [1, 2], "loss": [2.0, 1.0]}, "evaluations": {}}
        api.answers[f"GET /jobs/job_{number}/metrics"] = (200, metrics)


def test_comparison_shows_rewards_where_there_are_any(api: FakeApi) -> None:
    answer_two_jobs(api, eval_loss=0.5, reward_accuracy=0.0, reward_margin=-0.25)
    shown = finetuned("compare", "job_1", "job_2", "--url", api.url, COLUMNS="120").stdout
    rows = [line.split() for line in shown.splitlines()]
    assert ["reward_accuracy", "0", "0"] in rows
    assert ["reward_margin", "-0.25", "-0.25"] in rows


def test_comparison_shows_what_differs(api: FakeApi) -> None:
    answer_two_jobs(api)
    shown = finetuned("compare", "job_1", "job_2", "--url", api.url, COLUMNS="120").stdout
    assert any(line.split() == ["optimizer.learning_rate", "0.0001", "0.0002"] for line in shown.splitlines())
    assert "model" not in shown
    assert "reward" not in shown
    assert "⢱" in shown
    found = json.loads(finetuned("compare", "job_1", "job_2", "--json", "--url", api.url).stdout)
    assert found["recipe"] == {"optimizer.learning_rate": [1e-4, 2e-4]}


def test_file_is_checked_without_a_service(tmp_path: Path) -> None:
    good = finetuned("datasets", "check", str(ROOT / "examples/data/quickstart.jsonl"))
    assert good.returncode == 0, good.stderr
    assert "rows of messages" in good.stdout
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\nno JSON\n')
    bad = finetuned("datasets", "check", str(tmp_path / "rows.jsonl"))
    assert bad.returncode == 1
    assert "row 2: " in bad.stdout
    assert finetuned("datasets", "check", "none").stderr == "none is not a file\n"
