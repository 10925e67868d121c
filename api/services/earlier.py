"""The adapter that a recipe starts from, to be looked at."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.settings import ApiSettings
from storage.backends import Folder, make_storage
from store.access.principal import Principal
from store.earlier_adapter import earlier_adapter
from store.session import Sessions


@contextmanager
def earlier_of(sessions: Sessions, settings: ApiSettings, who: Principal, start_from: str) -> Iterator[Path]:
    """Its folder, for as long as that is needed. Raises InputError, StorageUnavailable."""
    storage, home = make_storage(settings), Folder(settings.home)
    with tempfile.TemporaryDirectory(prefix="finetuned-") as fetched:
        yield earlier_adapter(sessions, storage, home, start_from, Path(fetched) / "adapter", who.scope)
