"""Deletes the files of what users have deleted."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from storage.backends import FolderStorage, Storage
from store import deletions
from store.session import Sessions
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cleaner:
    sessions: Sessions
    settings: WorkerSettings
    storage: Storage
    stopping: Callable[[], bool]

    def delete_files(self) -> None:
        """Deletes all files that are due. Raises OSError, StorageUnavailable, and OperationalError while the database
        is unavailable; another call continues."""
        home = FolderStorage(self.settings.home)
        storages = [home, self.storage] if self.storage.remote else [home]
        while not self.stopping() and (path := deletions.delete_next(self.sessions, storages)) is not None:
            log.info("the files of %s are deleted", path)
