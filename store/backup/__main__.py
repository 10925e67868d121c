"""`python -m store.backup backup FILE [--json]` and `restore FILE [--json]`; "-" is the standard output or input."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sqlalchemy.exc import SQLAlchemyError

from runtime.atomic_files import replacing
from runtime.private_files import keep_private
from runtime.settings import read_settings
from storage.errors import StorageUnavailable
from store.backup.archive import BackupError
from store.backup.restore import migrate_by_process, restore
from store.backup.save import save
from store.backup.settings import BackupSettings


def main() -> None:
    action, file, *options = sys.argv[1:]
    settings = read_settings(BackupSettings)
    keep_private(settings.home)  # the archive has the secrets of webhooks
    try:
        found, words = {"backup": _backup, "restore": _restore}[action](settings, file)
        if options == ["--json"]:
            sys.stdout.write(json.dumps(found) + "\n")
        else:
            sys.stderr.write(f"{words}\n")
    except BackupError as error:
        sys.exit(f"{action}: {file}: {error}")
    except (StorageUnavailable, OSError) as error:
        sys.exit(f"{action}: {error}")
    except SQLAlchemyError as error:
        sys.exit(f"{action}: the database: {str(error).splitlines()[0]}")


def _backup(settings: BackupSettings, file: str) -> tuple[dict[str, int], str]:
    """What was saved, as JSON and as a line."""
    with _output(file) as stream:
        saved = save(settings, stream)
    for words, keys in (("is missing in the storage", saved.missing), ("has changed in the storage", saved.changed)):
        for key in sorted(keys):
            sys.stderr.write(f"backup: {key} {words}\n")
    manifest = saved.manifest
    found = {"rows": manifest.rows, "files": manifest.files, "bytes": saved.bytes}
    return found, f"saved {manifest.rows} rows and {manifest.files} files, {saved.bytes:,} bytes"


@contextmanager
def _output(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdout.buffer
        return
    if Path(file).exists():
        raise BackupError("the file exists; give another name")
    with replacing(Path(file)) as beside, beside.open("wb") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


def _restore(settings: BackupSettings, file: str) -> tuple[dict[str, int], str]:
    """What was restored, as JSON and as a line."""
    if file == "-":
        manifest = restore(settings, sys.stdin.buffer, migrate_by_process)
    else:
        with Path(file).open("rb") as stream:
            manifest = restore(settings, stream, migrate_by_process)
    found = {"rows": manifest.rows, "files": manifest.files}
    return found, f"restored {manifest.rows} rows and {manifest.files} files"


if __name__ == "__main__":
    main()
