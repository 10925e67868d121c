"""The files in a job's run folders: what they are for, and their bytes."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from contract.run_dir import RunDir
from store import artifacts, evaluations, exports
from store.models import Artifact, Export, Job, JobEvaluation

log = logging.getLogger(__name__)


class FileUse(StrEnum):
    ARTIFACT = "artifact"
    TRAINING_CHECKPOINT = "training_checkpoint"
    LEFTOVER = "leftover"
    """Files that nothing needs after the end of the job."""
    RECORD = "record"
    """The recipe, events and log of the last attempt, from which people can repeat it."""


class RunFile(NamedTuple):
    path: Path
    bytes: int
    use: FileUse


def list_files(session: Session, runs: Path, job: Job, remote: bool) -> list[RunFile]:
    """All files in the run folders of a job that does not run. With a `remote` storage its published artifacts are
    there, and what the run folders still have of them is left over, as are the records."""
    found = session.scalars(select(Artifact).where(Artifact.job_id == job.id))
    needed = {Path(each.path) for each in found if not remote or each.published_at is None}
    active = select(Export).where(Export.job_id == job.id, Export.status.in_(["queued", "running"]))
    needed |= {exports.folder(export) for export in session.scalars(active)}
    under_way = select(JobEvaluation).where(JobEvaluation.job_id == job.id, JobEvaluation.status == "running")
    needed |= {evaluations.folder(evaluation) for evaluation in session.scalars(under_way)}
    states = {RunDir(artifacts.run_path(job.id, number)).states for number in range(1, job.attempt + 1)}
    last = artifacts.run_path(job.id, job.attempt)

    def use_of(path: Path) -> FileUse:
        folders = {path, *path.parents}
        if folders & needed:
            return FileUse.ARTIFACT
        if folders & states:
            return FileUse.TRAINING_CHECKPOINT
        return FileUse.RECORD if last in folders and not remote else FileUse.LEFTOVER

    return [RunFile(path, size, use_of(path.relative_to(runs))) for path, size in _walk(runs / job.id)]


def _walk(folder: Path) -> Iterator[tuple[Path, int]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            with suppress(FileNotFoundError):  # another process deletes it
                yield path, path.lstat().st_size


def delete_files(runs: Path, files: Iterable[RunFile]) -> list[RunFile]:
    """Deletes files and the folders that are empty then. Returns the files that are gone; the log names the others."""
    gone = []
    for file in files:
        try:
            file.path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be deleted: %s", file.path, error)
            continue
        gone.append(file)
        for folder in file.path.relative_to(runs).parents:
            if folder == Path() or not _remove_empty(runs / folder):
                break
    return gone


def _remove_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # it is not empty, or another process was first
        return False
    return True
