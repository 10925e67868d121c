"""Uploads what is to be pushed to a hub, for as long as the API runs. Several processes share the work. If one dies,
another takes over, and uploads what the hub lacks."""

import asyncio
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from anyio import CancelScope, CapacityLimiter, create_task_group, get_cancelled_exc_class, to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.pushes.upload import PushInterrupted, PushRefused, Upload, lay_out, make_folder, send
from api.settings import ApiSettings
from storage.backends import Storage
from storage.errors import StorageUnavailable
from store import artifacts, pushes
from store.access import secrets
from store.access.vault import Unreadable, Vault
from store.errors import ArtifactNotFound, SecretNotFound
from store.pushes import ClaimedPush, PushTiming, Uploaded
from store.session import Sessions

log = logging.getLogger(__name__)

T = TypeVar("T")

AT_ONCE = 2
AWAY_SECONDS = 2.0


@dataclass(frozen=True)
class PusherPace:
    poll_seconds: float = 1.0
    send_seconds: float = 300.0
    """Longest time in which the hub takes or sends no byte: it may count a large file before it answers."""
    timing: PushTiming = field(default_factory=PushTiming)


class Pusher:
    def __init__(
        self, sessions: Sessions, vault: Vault, storage: Storage, settings: ApiSettings, pace: PusherPace
    ) -> None:
        self._sessions, self._vault, self._storage = sessions, vault, storage
        self._incoming = settings.incoming
        self._pace = pace
        self._at_work = 0
        self._threads = CapacityLimiter(2)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with create_task_group() as pushing:
            while True:
                due, wait = await self._look()
                for each in due:
                    self._at_work += 1
                    pushing.start_soon(self._push, each)
                await asyncio.sleep(wait)

    async def _look(self) -> tuple[list[ClaimedPush], float]:
        """Pushes that can be uploaded now, and the seconds until the next look."""
        free, timing = AT_ONCE - self._at_work, self._pace.timing
        try:
            due = await self._store(lambda session: pushes.claim(session, free, timing)) if free else []
        except SQLAlchemyError as error:
            log.warning("pushes wait, the database is away: %s", error)
            return [], AWAY_SECONDS
        except Exception:
            log.exception("pushes wait; the next look will find them")
            return [], AWAY_SECONDS
        return due, self._pace.poll_seconds

    async def _push(self, claimed: ClaimedPush) -> None:
        """Raises nothing but that it is cancelled. Whatever is not recorded here is tried again after the lease."""
        try:
            async with create_task_group() as tasks:
                tasks.start_soon(self._renew, claimed, tasks.cancel_scope)
                await self._try(claimed)
                tasks.cancel_scope.cancel()
        except get_cancelled_exc_class():
            with CancelScope(shield=True):
                await self._record(claimed, lambda session: pushes.release(session, claimed))
            raise
        except Exception:  # of what keeps the lease or records
            log.exception("push %s will be tried again", claimed.id)
        finally:
            self._at_work -= 1

    async def _renew(self, claimed: ClaimedPush, scope: CancelScope) -> None:
        """Keeps the lease; ends the upload if it is lost."""
        timing = self._pace.timing
        while True:
            await asyncio.sleep(timing.lease.total_seconds() / 3)
            try:
                is_ours = await self._store(lambda session: pushes.renew(session, claimed, timing))
            except SQLAlchemyError as error:
                log.warning("push %s: the database is away: %s", claimed.id, error)
                continue
            if not is_ours:
                log.info("push %s was deleted, or another process has it", claimed.id)
                scope.cancel()

    async def _try(self, claimed: ClaimedPush) -> None:
        timing = self._pace.timing
        try:
            uploaded = await self._upload(claimed)
        except PushRefused as error:
            words = str(error)
            log.warning("push %s of job %s failed: %s", claimed.id, claimed.job_id, words)
            await self._record(claimed, lambda session: pushes.fail(session, claimed, words))
        except (PushInterrupted, StorageUnavailable, OSError) as error:
            words = f"{error}" or type(error).__name__
            log.warning("push %s of job %s will be tried again: %s", claimed.id, claimed.job_id, words)
            await self._record(claimed, lambda session: pushes.postpone(session, claimed, words, timing))
        except SQLAlchemyError as error:
            log.warning("push %s will be tried again, the database is away: %s", claimed.id, error)
        except Exception as error:  # of ours: what it says is for the log alone
            log.exception("push %s of job %s will be tried again", claimed.id, claimed.job_id)
            words = f"an unexpected {type(error).__name__}, which the API's log explains"
            await self._record(claimed, lambda session: pushes.postpone(session, claimed, words, timing))
        else:
            await self._record(claimed, lambda session: pushes.succeed(session, claimed, uploaded))

    async def _upload(self, claimed: ClaimedPush) -> Uploaded:
        folder = await to_thread.run_sync(make_folder, self._incoming, claimed)
        try:
            upload = await self._store(lambda session: self._read(session, claimed))
            files = await to_thread.run_sync(lay_out, self._storage, upload.artifact, folder)
            return await send(upload, files, folder, self._pace.send_seconds)
        except FileNotFoundError as error:
            raise PushRefused(f"the files of {claimed.artifact} are no longer on the server") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _read(self, session: Session, claimed: ClaimedPush) -> Upload:
        try:
            token = secrets.reveal(session, self._vault, claimed.owner, claimed.secret)
            return Upload(claimed, artifacts.get(session, claimed.job_id, claimed.artifact), token)
        except SecretNotFound as error:
            raise PushRefused(f"{error}: store it with PUT /secrets/{claimed.secret}, and push again") from error
        except (Unreadable, ArtifactNotFound) as error:
            raise PushRefused(str(error)) from error

    async def _record(self, claimed: ClaimedPush, work: Callable[[Session], None]) -> None:
        try:
            await self._store(work)
        except SQLAlchemyError as error:
            log.warning("push %s will be tried again, the database is away: %s", claimed.id, error)

    async def _store(self, work: Callable[[Session], T]) -> T:
        return await to_thread.run_sync(self._in_transaction, work, limiter=self._threads)

    def _in_transaction(self, work: Callable[[Session], T]) -> T:
        with self._sessions.begin() as session:
            return work(session)
