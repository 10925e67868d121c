"""Webhooks and the deliveries to them. A delivery is written in the transaction of the event that it reports, so none
is lost and none reports what did not happen."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from secrets import token_bytes
from typing import Any, NamedTuple

from sqlalchemy import CTE, FromClause, Text, cast, func, insert, literal, select, update
from sqlalchemy import delete as sa_delete
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session

from contract import ids
from contract.status import JobStatus
from store.access.secrets import WEBHOOK_PREFIX, webhook_place
from store.access.vault import Vault
from store.errors import DeliveryNotFound, QuotaExceeded, WebhookNotFound
from store.models import Delivery, Webhook
from store.paging import newest_first


class EventType(StrEnum):
    STARTED = "job.started"
    PAUSED = "job.paused"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELLED = "job.cancelled"
    OPENAI_SUCCEEDED = "fine_tuning.job.succeeded"
    OPENAI_FAILED = "fine_tuning.job.failed"
    OPENAI_CANCELLED = "fine_tuning.job.cancelled"
    PING = "ping"
    """A test message, sent to any webhook when its owner requests it."""


_TYPES: dict[JobStatus, list[EventType]] = {
    JobStatus.RUNNING: [EventType.STARTED],
    JobStatus.PAUSED: [EventType.PAUSED],
    JobStatus.SUCCEEDED: [EventType.SUCCEEDED, EventType.OPENAI_SUCCEEDED],
    JobStatus.FAILED: [EventType.FAILED, EventType.OPENAI_FAILED],
    JobStatus.CANCELLED: [EventType.CANCELLED, EventType.OPENAI_CANCELLED],
}

_WAITS = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)


@dataclass(frozen=True)
class DeliveryTiming:
    waits: tuple[timedelta, ...] = tuple(timedelta(seconds=seconds) for seconds in _WAITS)
    """Waits between the tries of a message, as in Standard Webhooks; after the last try it fails."""
    claimed: timedelta = timedelta(minutes=1)
    """How long other senders leave a message alone that one is sending. Then that sender counts as dead."""


MOST = 20
"""Most webhooks of one owner, which bounds the messages of each event."""


def create(  # parameters: the columns, and what encrypts one
    session: Session, vault: Vault, owner: str, url: str, events: Sequence[EventType]
) -> tuple[Webhook, str]:
    """Creates a webhook with a new secret, which is returned beside it. Raises QuotaExceeded."""
    count = session.scalar(select(func.count()).where(Webhook.owner == owner)) or 0
    if count >= MOST:
        raise QuotaExceeded(f"{owner} has {count} webhooks, and may have {MOST}; delete one")
    secret = WEBHOOK_PREFIX + base64.b64encode(token_bytes(32)).decode()
    webhook_id = ids.new_id(ids.WEBHOOK)
    encrypted = vault.encrypt(webhook_place(webhook_id), secret)
    webhook = Webhook(id=webhook_id, owner=owner, url=url, secret=encrypted, events=list(events), enabled=True)
    session.add(webhook)
    session.flush()
    return webhook, secret


def get(session: Session, webhook_id: str, owner: str | None) -> Webhook:
    """A webhook of `owner`, or of any owner with None. Raises WebhookNotFound."""
    webhook = session.get(Webhook, webhook_id)
    if webhook is None or owner not in (None, webhook.owner):
        raise WebhookNotFound(webhook_id)
    return webhook


def list_webhooks(session: Session, owner: str | None, limit: int, after: str | None) -> list[Webhook]:
    """One page of webhooks, newest first; `after` is the last id of the page before. Raises WebhookNotFound."""
    query = select(Webhook)
    if owner is not None:
        query = query.where(Webhook.owner == owner)
    last = None if after is None else get(session, after, owner)
    return list(session.scalars(newest_first(query, Webhook, limit, last)))


def delete(session: Session, webhook_id: str, owner: str | None) -> None:
    """Deletes a webhook and its deliveries. Raises WebhookNotFound."""
    session.delete(get(session, webhook_id, owner))


def list_deliveries(
    session: Session, webhook_id: str, owner: str | None, limit: int, after: str | None
) -> list[Delivery]:
    """One page of a webhook's deliveries, sent or not, newest first. Raises WebhookNotFound, DeliveryNotFound."""
    get(session, webhook_id, owner)
    last = None if after is None else session.get(Delivery, after)
    if after is not None and (last is None or last.webhook_id != webhook_id):
        raise DeliveryNotFound(after)
    query = select(Delivery).where(Delivery.webhook_id == webhook_id)
    return list(session.scalars(newest_first(query, Delivery, limit, last)))


def deliveries_of_move(job: FromClause, status: JobStatus) -> list[CTE]:
    """The part of the statement that moves a job which adds a delivery for each webhook of its owner that wants one."""
    if status not in _TYPES:
        return []
    kind = func.unnest(literal(_TYPES[status], ARRAY(Text))).column_valued("kind")
    message_id = ids.DELIVERY + func.replace(cast(func.gen_random_uuid(), Text), "-", "")
    payload = func.json_build_object("data", func.json_build_object("id", job.c.id))
    row = (message_id, Webhook.id, kind, payload, literal("pending"), literal(0), func.now())
    wanted = (Webhook.owner == job.c.owner, Webhook.enabled, cast(Webhook.events, JSONB).has_key(kind))
    names = ["id", "webhook_id", "type", "payload", "status", "attempts", "due_at"]
    return [insert(Delivery).from_select(names, select(*row).where(*wanted)).cte("messages")]


def ping(session: Session, webhook: Webhook) -> Delivery:
    delivery_id = _add(session, webhook.id, EventType.PING, {"id": webhook.id})
    delivery = session.get(Delivery, delivery_id)
    assert delivery is not None
    return delivery


def _add(session: Session, webhook_id: str, kind: EventType, data: dict[str, Any]) -> str:
    message_id = ids.new_id(ids.DELIVERY)
    row = {
        "id": message_id,
        "webhook_id": webhook_id,
        "type": kind,
        "payload": {"data": data},
        "status": "pending",
        "attempts": 0,
        "due_at": func.now(),
    }
    session.execute(insert(Delivery).values(row))
    return message_id


def get_delivery(session: Session, delivery_id: str, owner: str | None, *, lock: bool = False) -> Delivery:
    """A delivery of `owner`, or of any owner with None. Raises DeliveryNotFound."""
    delivery = session.get(Delivery, delivery_id, with_for_update=lock or None, populate_existing=True)
    if delivery is None:
        raise DeliveryNotFound(delivery_id)
    try:
        get(session, delivery.webhook_id, owner)
    except WebhookNotFound:
        raise DeliveryNotFound(delivery_id) from None
    return delivery


def resend(session: Session, delivery_id: str, owner: str | None) -> Delivery:
    """Makes a message due now, with all its tries. Raises DeliveryNotFound."""
    delivery = get_delivery(session, delivery_id, owner, lock=True)
    delivery.status, delivery.attempts, delivery.due_at = "pending", 0, func.now()
    session.flush()
    session.refresh(delivery)
    return delivery


def message(delivery: Delivery) -> dict[str, Any]:
    """The body of a delivery, in the shape of OpenAI's webhooks."""
    head = {"id": f"evt_{delivery.id.removeprefix(ids.DELIVERY)}", "object": "event"}
    return head | {"created_at": int(delivery.created_at.timestamp()), "type": delivery.type, **delivery.payload}


class Due(NamedTuple):
    """A message that is to be sent now."""

    id: str
    url: str
    webhook_id: str
    secret: str
    """Encrypted, as its row has it."""
    payload: dict[str, Any]
    attempts: int
    """Number of tries, this one included."""


def claim(session: Session, limit: int, timing: DeliveryTiming) -> list[Due]:
    """Messages to send now, which no other sender takes for `timing.claimed`. One whose sender dies is sent again."""
    due = (
        select(Delivery, Webhook)
        .join(Webhook)
        .where(Delivery.status == "pending", Delivery.due_at <= func.now(), Webhook.enabled)
        .order_by(Delivery.due_at)
        .limit(limit)
        .with_for_update(of=Delivery, skip_locked=True)
    )
    found = session.execute(due).all()
    taken = []
    for delivery, webhook in found:
        delivery.attempts += 1
        delivery.due_at = func.now() + timing.claimed
        taken.append(Due(delivery.id, webhook.url, webhook.id, webhook.secret, message(delivery), delivery.attempts))
    return taken


def record_result(session: Session, due: Due, status: int | None, error: str | None, timing: DeliveryTiming) -> None:
    """Records the result of a try: the HTTP status of the response, or the error. 2xx is delivered; 410 disables the
    webhook, because its receiver wants nothing more."""
    mine = update(Delivery).where(
        Delivery.id == due.id, Delivery.status == "pending", Delivery.attempts == due.attempts
    )
    values: dict[str, Any] = {"response_status": status, "error": error}
    if status is not None and 200 <= status < 300:
        values |= {"status": "delivered", "delivered_at": func.now()}
    elif status == 410 or due.attempts > len(timing.waits):
        values |= {"status": "failed"}
    else:
        values |= {"due_at": func.now() + timing.waits[due.attempts - 1]}
    webhook_id = session.scalar(mine.values(values).returning(Delivery.webhook_id))
    if status == 410 and webhook_id is not None:
        session.execute(update(Webhook).where(Webhook.id == webhook_id).values(enabled=False))


def prune(session: Session, age: timedelta) -> None:
    """Deletes the messages that were delivered, or have failed, and are older than `age`."""
    done = Delivery.status.in_(["delivered", "failed"])
    session.execute(sa_delete(Delivery).where(done, Delivery.created_at < func.now() - age))
