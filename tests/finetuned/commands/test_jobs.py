import getpass
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi, event, job

PLAN: dict[str, Any] = {
    "parameters": {
        "total": 1_000_000,
        "trainable": 10_000,
        "by_module": [{"name": "q_proj", "modules": 2, "parameters": 10_000, "fraction": 0.125}],
        "left_out": [{"reason": "Routed experts are not adapted.", "names": ["up_proj"], "parameters": 5}],
    },
    "base": {"stored_as": "GPTQ in 4 bits", "loaded_as": "dequantised", "file_bytes": 5e9, "loaded_bytes": 14e9},
    "work": {"train_examples": 90, "effective_batch_size": 8, "steps": 36, "tokens": 12_345},
    "devices": [
        {
            "device": "NVIDIA A10",
            "devices": 1,
            "precision": "bf16",
            "memory": {"weights": 30e9, "activations": 10e9, "logits": 0, "total": 41e9}
            | dict.fromkeys(("adapter", "gradients", "optimizer", "communication_buffers", "overhead"), 0),
            "available": 24e9,
            "fits": False,
            "suggestions": [{"base_bits": 4}],
            "tokens_per_second": 100.0,
            "cold_start_seconds": 12.0,
            "eta_seconds": 123.45,
            "measured_jobs": 3,
        }
    ],
    "disk": {"adapter": 40_000, "adapters": 80_000, "states": 360_000, "total": 440_000, "merged": 2_000_000},
    "packed": True,
    "packing": "a small llama has the same loss and gradients packed",
    "expected_seconds": None,
    "unknown": {"memory": "a reason"},
    "warnings": ["schedule.max_steps: got 9; too many"],
}


def metric(step: int) -> str:
    data: dict[str, Any] = {
        "step": step, "epoch": 0.1, "loss": 3.0 / step, "tokens_per_second": 9.0, "eta_seconds": 1.0, "progress": 0.5
    }  # fmt: skip
    return event("metric", f"2.{step}", **data)


def test_submit_prints_the_id_alone(api: FakeApi, tmp_path: Path) -> None:
    api.answers["POST /jobs"] = (201, job())
    (tmp_path / "recipe.json").write_text('{"model": "m"}')
    done = finetuned("submit", str(tmp_path / "recipe.json"), "--url", api.url)
    assert (done.returncode, done.stdout) == (0, "job_1\n")
    assert "finetuned watch job_1" in done.stderr


def test_submit_reads_a_recipe_from_stdin(api: FakeApi) -> None:
    api.answers["POST /jobs"] = (201, job())
    assert finetuned("submit", "-", "--url", api.url, stdin='{"model": "m"}').returncode == 0
    assert api.bodies == [b'{"model": "m"}']


def test_submit_may_force_what_cannot_fit(api: FakeApi) -> None:
    api.answers["POST /jobs?force=true"] = (201, job())
    assert finetuned("submit", "-", "--force", "--url", api.url, stdin="{}").stdout == "job_1\n"


def test_plan_is_shown_as_text_or_json(api: FakeApi) -> None:
    api.answers["POST /plans"] = (200, PLAN)
    done = finetuned("plan", "-", "--url", api.url, stdin='{"model": "m"}')
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[:8] == [
        "trains 10,000 of 1,000,000 parameters (1.00%)",
        "q_proj 10,000 in 2, on 12.5% of the weights",
        "left out up_proj: Routed experts are not adapted.",
        "base GPTQ in 4 bits, dequantised: 5.0 GB on disk, 14.0 GB loaded",
        "steps 36, 8 examples each, of 90",
        "tokens 12,345",
        "documents packed: a small llama has the same loss and gradients packed",
        "disk 440.0 kB, 80.0 kB of it for good",
    ]
    assert "1 x NVIDIA A10 bf16; does not fit" in lines
    assert "memory 41.0 GB of 24.0 GB" in lines
    at = lines.index("time 2:03 min at 100 tokens/s, measured on 3 jobs")
    assert lines[at + 1] == "cold start 12 s of it, in the first step"
    warned = "warning: schedule.max_steps: got 9; too many"
    assert lines[-3:] == ['fits with {"base_bits": 4}', warned, "memory: a reason"]
    as_json = finetuned("plan", "-", "--json", "--url", api.url, stdin="{}")
    assert json.loads(as_json.stdout) == PLAN
    assert api.bodies == [b'{"model": "m"}', b"{}"]


def test_export_sends_format_and_shard_size(api: FakeApi) -> None:
    made = {"id": "exp_1", "status": "succeeded", "job_id": "job_1", "artifact": "made.tar", "failure": None}
    api.answers["POST /jobs/job_1/exports"] = (202, made)
    for options in ([], ["--format", "portable"], ["--shard-size", "2GB", "--source", "best.tar"]):
        done = finetuned("export", "job_1", *options, "--url", api.url)
        assert (done.returncode, done.stdout) == (0, "made.tar\n"), done.stderr
    assert [json.loads(body) for body in api.bodies] == [
        {"format": "merged", "source": "adapter.tar"},
        {"format": "portable", "source": "adapter.tar"},
        {"format": "merged", "source": "best.tar", "shard_size": "2GB"},
    ]


def test_push_sends_repo_and_artifact_and_prints_the_address(api: FakeApi) -> None:
    pushed = {"id": "push_1", "status": "succeeded", "error": None, "url": "https://hub/org/name"}
    api.answers["POST /jobs/job_1/pushes"] = (202, pushed)
    export = {"id": "exp_1", "status": "succeeded", "job_id": "job_1", "artifact": "portable.tar", "failure": None}
    api.answers["POST /jobs/job_1/exports"] = (202, export)
    for options in (
        [],
        ["--artifact", "checkpoint-2.tar", "--public", "--secret", "mine", "--revision", "v1"],
        ["--format", "portable"],
    ):
        done = finetuned("push", "job_1", "org/name", *options, "--url", api.url)
        assert (done.returncode, done.stdout) == (0, "https://hub/org/name\n"), done.stderr
    usual = {"repo": "org/name", "artifact": "adapter.tar", "secret": "hub", "private": True, "revision": None}
    chosen = {"artifact": "checkpoint-2.tar", "secret": "mine", "private": False, "revision": "v1"}
    assert [json.loads(body) for body in api.bodies] == [
        usual,
        usual | chosen,
        {"format": "portable", "source": "adapter.tar"},
        usual | {"artifact": "portable.tar"},
    ]


def test_refused_push_exits_with_the_hubs_words(api: FakeApi) -> None:
    refused = {"id": "push_1", "status": "failed", "error": "the hub answers 403 Forbidden: no rights", "url": None}
    api.answers["POST /jobs/job_1/pushes"] = (202, refused)
    done = finetuned("push", "job_1", "org/name", "--url", api.url)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "the hub answers 403 Forbidden: no rights\n")


def test_submit_says_whose_the_job_is(api: FakeApi) -> None:
    api.answers["POST /jobs"] = (201, job())
    assert finetuned("submit", "-", "--url", api.url, stdin="{}", FINETUNED_OWNER="").returncode == 0
    assert finetuned("submit", "-", "--url", api.url, stdin="{}", FINETUNED_OWNER="bert").returncode == 0
    assert api.owners == [re.sub(r"[^\w.@-]", "_", getpass.getuser()), "bert"]


def test_user_name_is_sent_as_the_owner(api: FakeApi) -> None:
    api.answers["POST /jobs"] = (201, job())
    assert finetuned("submit", "-", "--url", api.url, stdin="{}", LOGNAME="corp\\jos\u00e9").returncode == 0
    assert api.owners == ["corp_jos_"]


def test_recipe_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = finetuned("submit", str(tmp_path / "none.json"))
    assert done.returncode == 1
    assert done.stderr == f"cannot read {tmp_path / 'none.json'}: No such file or directory\n"


def test_watch_prints_lines_without_a_terminal(api: FakeApi) -> None:
    api.answers["GET /jobs/job_1"] = (200, job())
    api.streams = [
        event("status", "1.0", status="running", attempt=1)
        + event("phase", "2.0", name="imports", seconds=2.1)
        + metric(1)
        + metric(2)
        + event("checkpoint", "3.2", step=2, bytes=1000, final=True)
        + event("status", "4.2", status="succeeded", attempt=1)
    ]
    done = finetuned("watch", "job_1", "--url", api.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "running",
        "imports 2.1 s",
        "step 1/?  epoch 0.10  loss 3.0000  9 tokens/s  1 s left",
        "adapter saved at step 2 (1.0 kB)",
        "step 2/?  epoch 0.10  loss 1.5000  9 tokens/s  1 s left",
        f"succeeded: loss 3.000 -> 1.500; finetuned download job_1 --url {api.url}",
    ]


def test_watch_of_a_failing_job_exits_with_1(api: FakeApi) -> None:
    api.answers["GET /jobs/job_1"] = (200, job())
    api.streams = [event("status", "1.0", status="failed", attempt=1, failure={"message": "out of memory"})]
    done = finetuned("watch", "job_1", "--url", api.url)
    assert (done.returncode, done.stdout) == (1, "failed: out of memory\n")


def test_watch_shows_queue_reasons_and_retries(api: FakeApi) -> None:
    api.answers["GET /jobs/job_1"] = (200, job())
    failed = {"code": "worker_lost", "message": "worker a was lost"}
    api.streams = [
        event("status", "1.0", status="queued", attempt=0)
        + event(
            "queue",
            "1.0",
            position=2,
            reason="The job waits for 1 GPU.",
            estimated_start_at=None,
        )
        + event("status", "2.0", status="running", attempt=1)
        + event("retry", "3.0", retries=1, max_retries=3, wait_seconds=4.0, **failed)
        + event("status", "4.0", status="queued", attempt=1)
        + event("status", "5.0", status="paused", attempt=1)
        + event("status", "6.0", status="cancelled", attempt=1)
    ]
    assert finetuned("watch", "job_1", "--url", api.url).stdout.splitlines() == [
        "queued",
        "number 2 in the queue. The job waits for 1 GPU.",
        "running",
        "worker a was lost; retry 1 of 3 in 4 s",
        "queued again",
        f"paused; resume it with: finetuned resume job_1 --url {api.url}",
        "cancelled",
    ]


@pytest.mark.parametrize(
    ("arguments", "path", "status", "reported"),
    [
        (["cancel"], "cancel", "cancelled", "cancelled"),
        (["cancel"], "cancel", "running", "running; it will be cancelled once its processes are gone"),
        (["cancel", "--force"], "cancel?force=true", "cancelled", "cancelled"),
        (["pause"], "pause", "paused", "paused; resume it with: finetuned resume job_1"),
        (
            ["pause"],
            "pause",
            "running",
            "running; it will be paused once it has saved; resume it with: finetuned resume job_1",
        ),
        (["resume"], "resume", "queued", "queued; watch it with: finetuned watch job_1"),
        (["retry"], "retry", "queued", "queued; watch it with: finetuned watch job_1"),
    ],
)
def test_job_actions_print_the_new_status(
    api: FakeApi, arguments: list[str], path: str, status: str, reported: str
) -> None:
    api.answers[f"POST /jobs/job_1/{path}"] = (200, job(status))
    done = finetuned(*arguments, "job_1", FINETUNED_URL=api.url)
    assert (done.returncode, done.stderr) == (0, f"{reported}\n")


def test_job_list_is_a_table_or_json(api: FakeApi) -> None:
    two_hours_ago = {"created_at": (datetime.now(UTC) - timedelta(hours=2.5)).isoformat()}
    jobs = [job("running"), job("queued"), job("queued") | {"name": "[red]x\x1b[31m"}]
    jobs = [each | two_hours_ago for each in jobs]
    api.answers["GET /jobs"] = (200, {"data": jobs, "has_more": False})
    table = finetuned("list", "--url", api.url, COLUMNS="100").stdout
    assert [line.split("  ") for line in re.sub(" {3,}", "  ", table).splitlines()][1:] == [
        ["job_1", name, status, "3/9", "1.2500", "2 h"]
        for name, status in (
            ("a name", "running"),
            ("a name", "queued #3"),
            ("[red]x\ufffd[31m", "queued #3"),
        )
    ]
    assert json.loads(finetuned("list", "--json", "--url", api.url).stdout) == jobs


def test_job_fits_a_terminal_of_eighty_columns(api: FakeApi) -> None:
    wide = {"id": "job_" + "0" * 24, "name": "a-long-name-of-a-job", "owner": "somebody@example.com"}
    api.answers["GET /jobs"] = (200, {"data": [job("queued") | wide, job()], "has_more": False})
    lines = finetuned("list", "--url", api.url, COLUMNS="80").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["job", "name", "owner", "status", "step", "loss", "age"]
    assert lines[1].split()[0] == wide["id"]
    columns = [
        slice(lines[0].index(name), lines[0].index(after)) for name, after in (("name", "owner"), ("owner", "status"))
    ]
    assert ["".join(line[column].strip() for line in lines[1:-1]) for column in columns] == [
        wide["name"],
        wide["owner"],
    ]


def test_usual_name_stays_on_one_line(api: FakeApi) -> None:
    named = {"id": "job_" + "0" * 24, "name": "quickstart"}
    api.answers["GET /jobs"] = (200, {"data": [job("succeeded") | named], "has_more": False})
    assert "  quickstart  " in finetuned("list", "--url", api.url, COLUMNS="80").stdout


def test_download_takes_the_best_on_request(api: FakeApi, tmp_path: Path) -> None:
    api.answers["GET /jobs/job_1/artifacts/best.tar"] = (404, {"error": {"code": "not_found", "message": "none"}})
    done = finetuned("download", "job_1", "--best", "--out", str(tmp_path), "--url", api.url)
    assert (done.returncode, done.stderr) == (1, "none\n")


def test_job_is_deleted_or_the_refusal_shown(api: FakeApi) -> None:
    api.answers["DELETE /jobs/job_1"] = (200, {"id": "job_1", "deleted": True})
    done = finetuned("delete", "job_1", "--url", api.url)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "job_1 is deleted\n")
    refusal = "job job_1 is running; cancel it, and delete it once it has ended"
    api.answers["DELETE /jobs/job_1"] = (409, {"error": {"code": "job_in_use", "message": refusal, "param": None}})
    done = finetuned("delete", "job_1", "--url", api.url)
    assert (done.returncode, done.stderr) == (1, f"{refusal}\n")
