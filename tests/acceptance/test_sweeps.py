"""A sweep's whole way through the API, the broker and a worker; the trainer is a process that trains nothing."""

import json
from pathlib import Path

import pytest

from tests.finetuned.command_line import finetuned
from tests.support.service import Service

pytestmark = pytest.mark.slow


@pytest.mark.exhaustive
def test_sweep_is_run_to_its_best_job(live: Service, tmp_path: Path) -> None:
    url = str(live.client.base_url)
    (tmp_path / "recipe.json").write_text(json.dumps({"model": "tiny", "dataset": "rows.jsonl", "name": "steps=3"}))
    arguments = ["--grid", "adapter.r=8,16", "--watch", "--json", "--url", url]
    done = finetuned("sweep", str(tmp_path / "recipe.json"), *arguments)
    assert done.returncode == 0, done.stderr
    swept = json.loads(done.stdout)
    assert [(job["status"], job["step"], job["values"]["adapter.r"]) for job in swept["jobs"]] == [
        ("succeeded", 3, 8),
        ("succeeded", 3, 16),
    ]
    assert swept["best"] == min(swept["jobs"], key=lambda job: job["loss"])["id"]
    for job in swept["jobs"]:
        used = json.loads((live.run_dir(job["id"]).path / "recipe.json").read_text())
        assert used["adapter"]["r"] == job["values"]["adapter.r"]
    assert f"finetuned download {swept['best']}" in finetuned("sweep", "show", swept["id"], "--url", url).stderr


@pytest.mark.exhaustive
def test_stopped_sweep_keeps_its_best_job(live: Service, tmp_path: Path) -> None:
    recipe = {"model": "tiny", "dataset": "rows.jsonl", "name": "steps=1000 sleep=0.05"}
    made = live.client.post("/sweeps", json={"recipe": recipe, "grid": {"seed": [1, 2, 3]}}).raise_for_status().json()
    first, *rest = (job["id"] for job in made["jobs"])
    live.wait_for_step(first, 1)
    finetuned("sweep", "stop", made["id"], "--keep", first, "--url", str(live.client.base_url)).check_returncode()
    assert {live.wait(job_id)["status"] for job_id in rest} == {"cancelled"}
    assert live.job(first)["status"] == "running"
    live.client.post(f"/sweeps/{made['id']}/cancel").raise_for_status()
    assert live.wait(first)["status"] == "cancelled"
