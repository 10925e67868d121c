"""The commands of docs/datasets.md."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from store.session import Sessions
from tests.support import service
from tests.support.files import add_model_and_dataset, write_model, write_tokenizer

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/datasets.md").read_text()
COMMANDS = re.findall(r"^    ((?:finetuned|curl) .*)$", PAGE, re.MULTILINE)
RECIPES = re.findall(r"^    (\{.*\})$", PAGE, re.MULTILINE)
_ID = re.compile(r"file-[0-9a-f]{24}")


@pytest.mark.exhaustive
def test_documented_commands_work_as_written(
    tmp_path: Path, sessions: Sessions, database_url: str, broker_url: str
) -> None:
    add_model_and_dataset(tmp_path)
    write_model(tmp_path / "models" / "smollm2-135m-instruct")
    write_tokenizer(tmp_path / "models" / "smollm2-135m-instruct")
    settings = {"FINETUNED_ALLOWED_PATHS": str(ROOT)}
    with service.running(tmp_path, database_url, broker_url, workers=(), **settings) as live:
        known = ""
        assert len(COMMANDS) >= 14
        for command in COMMANDS:
            done = run(command, str(live.client.base_url), known, tmp_path)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            if "curl" in command and done.stdout:
                assert "error" not in json.loads(done.stdout), (command, done.stdout)
            made = " add " in command or " -F " in command or " --json " in command
            known = _ID.findall(done.stdout)[0] if made else known
        added = run(COMMANDS[0], str(live.client.base_url), "", tmp_path).stdout.strip()
        (recipe,) = (json.loads(each.replace("DATASET", added)) for each in RECIPES if '"evaluation"' in each)
        assert live.client.post("/jobs", json=recipe).status_code == 201


def run(command: str, url: str, dataset: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    command = command.replace("DATASET", dataset).replace("http://127.0.0.1:8000", url.rstrip("/"))
    command = command.replace("rows.jsonl", str(folder / "downloaded.jsonl")) if " -o " in command else command
    command = re.sub(r"^finetuned", f"{sys.executable} -m finetuned", command)
    environment = {"PATH": "/usr/bin:/bin", "FINETUNED_URL": url, "HOME": str(folder)}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment
    )
