"""Unpacks an adapter."""

import shutil
import tarfile
import tempfile
from pathlib import Path

from finetuned.errors import Damaged


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks the one folder in `archive` as `folder`, and deletes the archive. Raises Damaged, OSError."""
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as scratch:
            with tarfile.open(archive) as opened:
                opened.extractall(scratch, filter="data")  # refuses files outside of the folder
            # The best checkpoint is in a folder named after its step.
            (inner,) = Path(scratch).iterdir()
            shutil.copytree(inner, folder, dirs_exist_ok=True)
    except (tarfile.TarError, EOFError) as error:
        raise Damaged(f"{archive.name.strip('.')} cannot be unpacked: {error}") from error
    finally:
        archive.unlink()
