"""The names of fine-tuned models: "ft:BASE:OWNER:SUFFIX:JOB", with ":ckpt-step-STEP" after it for a checkpoint."""

import re
from dataclasses import dataclass

from store.models import Job

_NAME = re.compile(r"ft:.*:(?P<job>[0-9a-f]{24})(:ckpt-step-(?P<step>[0-9]{1,9}))?", re.DOTALL)


@dataclass(frozen=True)
class FineTuned:
    job_id: str
    step: int | None
    """None for the final adapter."""

    @property
    def start_from(self) -> str:
        """The value of a recipe's adapter.start_from."""
        return self.job_id if self.step is None else f"{self.job_id}/checkpoint-{self.step}"


def name_of(job: Job, step: int | None = None) -> str:
    name = name_of_made(job.id, job.owner, job.recipe["model"], (job.openai_request or {}).get("suffix"))
    return name if step is None else f"{name}:ckpt-step-{step}"


def name_of_made(job_id: str, owner: str, base: str, suffix: str | None) -> str:
    folder = base.rstrip("/").rpartition("/")[2]
    return f"ft:{folder}:{owner}:{suffix or ''}:{job_id.removeprefix('job_')}"


def read_name(name: str) -> FineTuned | None:
    """None for any other name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return FineTuned(f"job_{found['job']}", int(found["step"]) if found["step"] else None)
