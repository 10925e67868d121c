"""Has datasets read by processes of their own."""

from pathlib import Path

from api.errors import TooManyRequests
from dataset.file import DatasetFile
from dataset.sandbox.child import DatasetSandbox, SandboxBusy
from dataset.sandbox.tasks import Answer, Task
from store.models.datasets import Dataset


def dataset_file(dataset: Dataset, path: Path) -> DatasetFile:
    """A stored dataset whose bytes are at `path`."""
    columns, format = dataset.columns, dataset.format or "auto"
    return DatasetFile.model_validate({"path": path, "name": dataset.filename, "format": format, "columns": columns})


def look(children: DatasetSandbox, task: Task[Answer], seconds: float) -> Answer:
    """As DatasetSandbox.run. Raises InputError, TooManyRequests, SandboxStopped."""
    try:
        return children.run(task, seconds)
    except SandboxBusy as error:
        raise TooManyRequests("as many datasets are being read as the service reads at once; ask again", 5) from error
