"""`python -m api.tracking.wandb_writer FOLDER`: writes a part of a run with the package of Weights & Biases.

It ends when all of that is uploaded, or in offline mode written to FOLDER. In: a JSON object on stdin. Out: one on
stdout.

A process of its own, so that the package's threads, its own process and its faults stay away from the API.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

LONGEST_SECONDS = 100
UPLOAD_SECONDS = 40
STEP, EVAL_STEP = "step", "eval_step"


def main() -> None:
    signal.alarm(LONGEST_SECONDS)  # nobody else ends it when the API is killed
    folder = Path(sys.argv[1])
    given = json.load(sys.stdin)
    # The package prints to both.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    json.dump(write(given, folder), answer)
    answer.close()


def write(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    import wandb

    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        silent=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
        host="finetuned",
        init_timeout=UPLOAD_SECONDS,
        finish_timeout=UPLOAD_SECONDS,
        finish_timeout_raises=True,
        # A run that goes on is not finished by the end of this process.
        x_update_finish_state=given["exit_code"] is not None,
    )
    offline = os.environ.get("WANDB_MODE") == "offline"
    run = wandb.init(
        id=given["id"],
        project=given["project"],
        entity=given["entity"],
        name=given["name"],
        tags=given["tags"],
        config=given["config"],
        resume=None if offline else "allow",
        dir=str(folder),
        settings=settings,
    )
    # The steps are ours: those of the package count its own calls.
    for name in given["metrics"]:
        run.define_metric(name, step_metric=STEP)
    run.define_metric("eval_*", step_metric=EVAL_STEP)
    last = {name: run.summary.get(name) for name in (STEP, EVAL_STEP)}
    for point in given["points"]:
        (step_name,) = point.keys() & {STEP, EVAL_STEP}
        # What a process wrote that was killed before it could say so.
        if last.get(step_name) is None or point[step_name] > last[step_name]:
            run.log(point)
    url = None if offline else run.url
    run.finish(exit_code=given["exit_code"])
    return {"url": url}


if __name__ == "__main__":
    main()
