"""Sends due messages to webhooks and records the results, for as long as the API runs. Several processes share the
work. If one dies while it sends, the message is sent again with the same webhook-id."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import httpx
from anyio import CapacityLimiter, create_task_group, to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from standardwebhooks.webhooks import Webhook

from api.http.outgoing import answer_to, make_client
from api.webhooks.public_address import Forbidden
from store import webhooks
from store.access.secrets import encrypt_again, webhook_place
from store.access.vault import Unreadable, Vault
from store.session import Sessions
from store.webhooks import DeliveryTiming, Due

log = logging.getLogger(__name__)

T = TypeVar("T")

AT_ONCE = 16
AWAY_SECONDS = 2.0
KEPT = timedelta(days=30)
_FORGET_SECONDS = 3600.0


@dataclass(frozen=True)
class SenderPace:
    poll_seconds: float = 1.0
    send_seconds: float = 15.0
    """Time from the name lookup to the first line of the response; well below `delivery.claimed`."""
    delivery: DeliveryTiming = field(default_factory=DeliveryTiming)


class Sender:
    def __init__(self, sessions: Sessions, vault: Vault, allow_private: bool, pace: SenderPace) -> None:
        self._sessions = sessions
        self._vault = vault
        self._allow_private = allow_private
        self._pace = pace
        self._at_work = 0
        self._threads = CapacityLimiter(2)
        self._next_forget = 0.0

    async def run(self) -> None:
        """Runs until it is cancelled."""
        async with make_client(self._pace.send_seconds, AT_ONCE) as http, create_task_group() as sending:
            while not await self._encrypt_again():
                await asyncio.sleep(AWAY_SECONDS)
            while True:
                due, wait = await self._look()
                for each in due:
                    self._at_work += 1
                    sending.start_soon(self._send, http, each)
                await asyncio.sleep(wait)

    async def _encrypt_again(self) -> bool:
        """Brings the stored secrets up to the first of the service's keys. Returns whether the database was there."""
        try:
            unreadable = await self._store(lambda session: encrypt_again(session, self._vault))
        except SQLAlchemyError as error:
            log.warning("webhooks wait, the database is away: %s", error)
            return False
        if unreadable:
            log.error("%s stored secrets cannot be decrypted with FINETUNED_SECRET_KEY", unreadable)
        return True

    async def _look(self) -> tuple[list[Due], float]:
        """The due messages that can be sent now, and the seconds until the next look."""
        free = AT_ONCE - self._at_work
        try:
            if time.monotonic() > self._next_forget:
                await self._store(lambda session: webhooks.prune(session, KEPT))
                self._next_forget = time.monotonic() + _FORGET_SECONDS
            due = await self._store(lambda session: webhooks.claim(session, free, self._pace.delivery)) if free else []
        except SQLAlchemyError as error:
            log.warning("webhooks wait, the database is away: %s", error)
            return [], AWAY_SECONDS
        except Exception:
            log.exception("webhooks wait; the next look will find them")
            return [], AWAY_SECONDS
        return due, self._pace.poll_seconds

    async def _send(self, http: httpx.AsyncClient, due: Due) -> None:
        """Raises nothing."""
        try:
            await self._try(http, due)
        except Exception:
            log.exception("webhook message %s will be sent again", due.id)
        finally:
            self._at_work -= 1

    async def _try(self, http: httpx.AsyncClient, due: Due) -> None:
        status, error = None, None
        try:
            async with asyncio.timeout(self._pace.send_seconds):
                status = await self._post(http, due)
            if not 200 <= status < 300:
                error = f"the receiver answered {status}"
        except TimeoutError:
            error = f"no answer within {self._pace.send_seconds:.0f} s"
        except (Unreadable, Forbidden, OSError, httpx.HTTPError, httpx.InvalidURL, UnicodeError) as problem:
            error = f"{problem}" or type(problem).__name__
        log.info("webhook message %s, try %s: %s", due.id, due.attempts, error or status)
        try:
            await self._store(lambda session: webhooks.record_result(session, due, status, error, self._pace.delivery))
        except SQLAlchemyError as problem:
            log.warning("webhook message %s will be sent again, the database is away: %s", due.id, problem)

    async def _post(self, http: httpx.AsyncClient, due: Due) -> int:
        """The status of the response. Nothing more of it is read."""
        body = json.dumps(due.payload, separators=(",", ":"), ensure_ascii=False).encode()
        secret = self._vault.decrypt(webhook_place(due.webhook_id), due.secret)
        headers = {**_signed(due, secret, body), "content-type": "application/json"}
        async with answer_to(http, "POST", due.url, headers, body, self._allow_private) as answer:
            return answer.status_code

    async def _store(self, work: Callable[[Session], T]) -> T:
        return await to_thread.run_sync(self._in_transaction, work, limiter=self._threads)

    def _in_transaction(self, work: Callable[[Session], T]) -> T:
        with self._sessions.begin() as session:
            return work(session)


def _signed(due: Due, secret: str, body: bytes) -> dict[str, str]:
    """The headers of https://www.standardwebhooks.com."""
    now = datetime.now(UTC)
    return {
        "webhook-id": due.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(due.id, now, body.decode()),
    }
