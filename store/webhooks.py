"""Webhooks and what is sent to them. A message is written in the transaction that writes what it tells of: none is
lost, and none tells of what did not happen."""

import base64
import secrets
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import CTE, FromClause, Text, cast, func, insert, literal, select, tuple_, update
from sqlalchemy import delete as sa_delete
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session

from contract.status import JobStatus
from store.errors import DeliveryNotFound, QuotaExceeded, WebhookNotFound
from store.models import Delivery, Webhook


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
    """Sent when its owner asks for it, to any webhook."""


_TYPES: dict[JobStatus, list[EventType]] = {
    JobStatus.RUNNING: [EventType.STARTED],
    JobStatus.PAUSED: [EventType.PAUSED],
    JobStatus.SUCCEEDED: [EventType.SUCCEEDED, EventType.OPENAI_SUCCEEDED],
    JobStatus.FAILED: [EventType.FAILED, EventType.OPENAI_FAILED],
    JobStatus.CANCELLED: [EventType.CANCELLED, EventType.OPENAI_CANCELLED],
}

WAITS = tuple(
    timedelta(seconds=seconds)
    for seconds in (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
)
"""Between the tries of a message, as Standard Webhooks has them; after the last try it has failed."""

IN_HAND = timedelta(minutes=1)
"""A message that is being sent is left alone for so long; then its sender is taken for dead."""


MOST = 20
"""Webhooks of one owner: what each job's end is told to is bounded."""


def create(session: Session, owner: str, url: str, events: Sequence[EventType]) -> Webhook:
    """Raises QuotaExceeded."""
    there = session.scalar(select(func.count()).where(Webhook.owner == owner)) or 0
    if there >= MOST:
        raise QuotaExceeded(f"{owner} has {there} webhooks, and may have {MOST}; delete one")
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    webhook = Webhook(
        id=f"wh_{secrets.token_hex(12)}", owner=owner, url=url, secret=secret, events=list(events), enabled=True
    )
    session.add(webhook)
    session.flush()
    return webhook


def get(session: Session, webhook_id: str, owner: str | None) -> Webhook:
    """`owner` None is anybody's. Raises WebhookNotFound."""
    webhook = session.get(Webhook, webhook_id)
    if webhook is None or owner not in (None, webhook.owner):
        raise WebhookNotFound(webhook_id)
    return webhook


def newest(session: Session, owner: str | None, limit: int, after: str | None) -> list[Webhook]:
    """Newest first; `after` is the last id of the page before. Raises WebhookNotFound."""
    query = select(Webhook).order_by(Webhook.created_at.desc(), Webhook.id.desc()).limit(limit)
    if owner is not None:
        query = query.where(Webhook.owner == owner)
    if after is not None:
        last = get(session, after, owner)
        query = query.where(tuple_(Webhook.created_at, Webhook.id) < (last.created_at, last.id))
    return list(session.scalars(query))


def delete(session: Session, webhook_id: str, owner: str | None) -> None:
    """With all that was to be sent to it. Raises WebhookNotFound."""
    session.delete(get(session, webhook_id, owner))


def log(session: Session, webhook_id: str, owner: str | None, limit: int, after: str | None) -> list[Delivery]:
    """What was sent to a webhook or is to be, newest first. Raises WebhookNotFound, DeliveryNotFound."""
    get(session, webhook_id, owner)
    query = select(Delivery).where(Delivery.webhook_id == webhook_id)
    query = query.order_by(Delivery.created_at.desc(), Delivery.id.desc()).limit(limit)
    if after is not None:
        last = session.get(Delivery, after)
        if last is None or last.webhook_id != webhook_id:
            raise DeliveryNotFound(after)
        query = query.where(tuple_(Delivery.created_at, Delivery.id) < (last.created_at, last.id))
    return list(session.scalars(query))


def telling(job: FromClause, status: JobStatus) -> list[CTE]:
    """Part of the statement that moves a job: tells whichever of its owner's webhooks want to know."""
    if status not in _TYPES:
        return []
    kind = func.unnest(literal(_TYPES[status], ARRAY(Text))).column_valued("kind")
    message_id = "msg_" + func.replace(cast(func.gen_random_uuid(), Text), "-", "")
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
    message_id = f"msg_{secrets.token_hex(12)}"
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
    """`owner` None is anybody's. Raises DeliveryNotFound."""
    delivery = session.get(Delivery, delivery_id, with_for_update=lock or None, populate_existing=True)
    if delivery is None:
        raise DeliveryNotFound(delivery_id)
    try:
        get(session, delivery.webhook_id, owner)
    except WebhookNotFound:
        raise DeliveryNotFound(delivery_id) from None
    return delivery


def send_again(session: Session, delivery_id: str, owner: str | None) -> Delivery:
    """Has a message sent at once, with all its tries. Raises DeliveryNotFound."""
    delivery = get_delivery(session, delivery_id, owner, lock=True)
    delivery.status, delivery.attempts, delivery.due_at = "pending", 0, func.now()
    session.flush()
    session.refresh(delivery)
    return delivery


def message(delivery: Delivery) -> dict[str, Any]:
    """What is sent, in the shape of OpenAI's webhooks."""
    told = {"id": f"evt_{delivery.id.removeprefix('msg_')}", "object": "event"}
    return told | {"created_at": int(delivery.created_at.timestamp()), "type": delivery.type, **delivery.payload}


class Due(NamedTuple):
    """A message to be sent now."""

    id: str
    url: str
    secret: str
    payload: dict[str, Any]
    attempts: int
    """Of which this is the last."""


def claim(session: Session, limit: int) -> list[Due]:
    """Messages to send, which no other sender takes for IN_HAND. One whose sender dies is sent again."""
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
        delivery.due_at = func.now() + IN_HAND
        taken.append(Due(delivery.id, webhook.url, webhook.secret, message(delivery), delivery.attempts))
    return taken


def note(session: Session, due: Due, status: int | None, error: str | None) -> None:
    """How a try has ended: the HTTP status of the answer, or what kept it from coming. 2xx is delivered; 410 is a
    receiver that wants nothing more, whose webhook is disabled."""
    mine = update(Delivery).where(
        Delivery.id == due.id, Delivery.status == "pending", Delivery.attempts == due.attempts
    )
    values: dict[str, Any] = {"response_status": status, "error": error}
    if status is not None and 200 <= status < 300:
        values |= {"status": "delivered", "delivered_at": func.now()}
    elif status == 410 or due.attempts > len(WAITS):
        values |= {"status": "failed"}
    else:
        values |= {"due_at": func.now() + WAITS[due.attempts - 1]}
    webhook_id = session.scalar(mine.values(values).returning(Delivery.webhook_id))
    if status == 410 and webhook_id is not None:
        session.execute(update(Webhook).where(Webhook.id == webhook_id).values(enabled=False))


def forget(session: Session, age: timedelta) -> None:
    """Messages that were delivered, or given up, so long ago."""
    done = Delivery.status.in_(["delivered", "failed"])
    session.execute(sa_delete(Delivery).where(done, Delivery.created_at < func.now() - age))
