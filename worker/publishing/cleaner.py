"""Deletes the files of what users have deleted, and what was kept for long enough."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from storage.backends import FolderStorage, Storage
from store import deletions
from store.retention import Retention
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
        storages: list[Storage] = [FolderStorage(self.settings.home)]
        if self.storage.remote:
            storages += [self.storage, FolderStorage(self.settings.fetched_adapters)]
        while not self.stopping() and (path := deletions.delete_next(self.sessions, storages)) is not None:
            log.info("the files of %s are deleted", path)

    @cached_property
    def _retention(self) -> Retention:
        return Retention(self.sessions, self.settings, self.storage, self.stopping)

    def clean(self) -> None:
        """Measures run folders, and deletes what the retention settings no longer keep. Raises as delete_files."""
        self._retention.measure()
        freed = self._retention.clean()
        for kind, count in freed.count.items():
            if count:
                log.info("retention has deleted %s: %s of them, %s bytes", kind, count, freed.bytes[kind])
