"""Sends trackers what is new about their jobs, for as long as the API runs. Several processes share the work. If one
dies while it sends, another finds out what the tracker has, and goes on from there."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

import httpx
from anyio import CapacityLimiter, create_task_group, to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from api.http.outgoing import make_client
from api.settings import ApiSettings
from api.tracking.mlflow import Mlflow
from api.tracking.tracker import Tracker, TrackerError
from api.tracking.wandb import Wandb, is_installed
from api.webhooks.public_address import Forbidden
from store import trackings
from store.access import secrets
from store.access.vault import Unreadable, Vault
from store.errors import SecretNotFound
from store.session import Sessions
from store.trackings import START, Followed, TrackingTiming

log = logging.getLogger(__name__)

T = TypeVar("T")

_REFUSALS = (TrackerError, Unreadable, Forbidden, OSError, httpx.HTTPError, httpx.InvalidURL, UnicodeError)

AT_ONCE = 8
AWAY_SECONDS = 2.0


@dataclass(frozen=True)
class FollowerPace:
    poll_seconds: float = 1.0
    send_seconds: float = 30.0
    """Time for one send to MLflow."""
    timing: TrackingTiming = field(default_factory=TrackingTiming)


class Follower:
    def __init__(self, sessions: Sessions, vault: Vault, settings: ApiSettings, pace: FollowerPace) -> None:
        self._sessions, self._vault = sessions, vault
        self._settings = settings
        self._pace = pace
        self._at_work = 0
        self._threads = CapacityLimiter(2)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with make_client(self._pace.send_seconds, AT_ONCE) as http, create_task_group() as sending:
            trackers = self._trackers(http)
            while True:
                due, wait = await self._look(trackers)
                for each in due:
                    self._at_work += 1
                    sending.start_soon(self._follow, trackers[each.type], each)
                await asyncio.sleep(wait)

    def _trackers(self, http: httpx.AsyncClient) -> Mapping[str, Tracker]:
        """By the field of a recipe's `tracking`."""
        settings = self._settings
        trackers: dict[str, Tracker] = {}
        trackers["mlflow"] = Mlflow(http, settings.webhook_allow_private, self._pace.send_seconds)
        if is_installed():
            offline_folder = settings.offline_wandb_runs if settings.wandb_offline else None
            trackers["wandb"] = Wandb(settings.wandb_url, offline_folder)
        return trackers

    async def _look(self, trackers: Mapping[str, Tracker]) -> tuple[list[Followed], float]:
        """Jobs whose news can be sent now, and the seconds until the next look."""
        free, claimed = AT_ONCE - self._at_work, {name: _claimed(each) for name, each in trackers.items()}
        try:
            due = await self._store(lambda session: trackings.claim(session, claimed, free)) if free else []
        except SQLAlchemyError as error:
            log.warning("trackers wait, the database is away: %s", error)
            return [], AWAY_SECONDS
        except Exception:
            log.exception("trackers wait; the next look will find what is new")
            return [], AWAY_SECONDS
        return due, self._pace.poll_seconds

    async def _follow(self, tracker: Tracker, followed: Followed) -> None:
        """Raises nothing."""
        try:
            error = await self._try(tracker, followed)
            if error is not None:
                log.warning("job %s: %s: %s", followed.job_id, followed.type, error)
                timing = self._pace.timing
                await self._store(lambda session: trackings.record_failure(session, followed, error, timing))
        except SQLAlchemyError as problem:
            log.warning(
                "job %s: %s will be tried again, the database is away: %s", followed.job_id, followed.type, problem
            )
        except Exception:
            log.exception("job %s: %s will be tried again", followed.job_id, followed.type)
        finally:
            self._at_work -= 1

    async def _try(self, tracker: Tracker, followed: Followed) -> str | None:
        """Sends all that is new. Returns what went wrong."""
        secret: str | None = None
        try:
            name = followed.place["secret"]
            if name is not None:
                secret = await self._store(lambda session: secrets.reveal(session, self._vault, followed.owner, name))
            await self._send(tracker, followed, secret)
        except TimeoutError:
            return f"no answer within {tracker.send_seconds:g} s"
        except SecretNotFound as problem:
            return f"{problem}: store it again with PUT /secrets/NAME"
        except _REFUSALS as problem:
            words = f"{problem}" or type(problem).__name__
            return words.replace(secret, "[secret]") if secret else words
        return None

    async def _send(self, tracker: Tracker, followed: Followed, secret: str | None) -> None:
        ours: Followed | None = followed
        while ours is not None:
            ours = await self._send_part(tracker, ours, secret)

    async def _send_part(self, tracker: Tracker, followed: Followed, secret: str | None) -> Followed | None:
        """The job as it is after a part of its news; None if there is nothing more to do."""
        start = replace(followed, position=START) if tracker.whole_at_end else followed
        news = await self._store(lambda session: trackings.read_news(session, start, tracker.most_events))
        if news is None:  # the job was deleted
            return None
        if tracker.whole_at_end and not news.has_ended:
            await self._store(lambda session: trackings.postpone(session, followed, tracker.interval))
            return None
        async with asyncio.timeout(tracker.send_seconds):
            sent = await tracker.send(followed, secret, news)
        after = replace(followed, run=sent.run, position=sent.position, is_certain=True)
        next_look = tracker.interval if news.is_all else _claimed(tracker)
        is_ours = await self._store(lambda session: trackings.record(session, after, news, next_look))
        return after if is_ours and not news.is_all else None

    async def _store(self, work: Callable[[Session], T]) -> T:
        return await to_thread.run_sync(self._in_transaction, work, limiter=self._threads)

    def _in_transaction(self, work: Callable[[Session], T]) -> T:
        with self._sessions.begin() as session:
            return work(session)


def _claimed(tracker: Tracker) -> timedelta:
    """How long other followers leave a job alone whose news one is sending: longer than any send."""
    return timedelta(seconds=1.5 * tracker.send_seconds)
