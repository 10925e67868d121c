from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from contract import patterns
from store.models import Delivery, Webhook
from store.webhooks import EventType, message


def _each_once(events: list[EventType]) -> list[EventType]:
    return list(dict.fromkeys(events))


Wanted = Literal[
    EventType.STARTED,
    EventType.PAUSED,
    EventType.SUCCEEDED,
    EventType.FAILED,
    EventType.CANCELLED,
    EventType.OPENAI_SUCCEEDED,
    EventType.OPENAI_FAILED,
    EventType.OPENAI_CANCELLED,
]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=patterns.URL)]
Events = Annotated[list[Wanted], Field(min_length=1, max_length=20), AfterValidator(_each_once)]


class NewWebhook(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: Url
    events: Events = [EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELLED]


class WebhookChange(BaseModel):
    """Fields that are left out stay as they are."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = None


class WebhookOut(BaseModel):
    id: str
    owner: str
    url: str
    events: list[EventType]
    enabled: bool
    """False also after the receiver has answered 410."""
    created_at: datetime


class WebhookCreated(WebhookOut):
    secret: str | None
    """Signs the deliveries; shown only in this response. Null if the request was sent and answered before."""


class WebhookPage(BaseModel):
    data: list[WebhookOut]
    has_more: bool


class WebhookDeleted(BaseModel):
    id: str
    deleted: Literal[True] = True


class DeliveryOut(BaseModel):
    id: str
    """The header webhook-id, the same at every attempt."""
    webhook_id: str
    type: EventType
    payload: dict[str, Any]
    """The message."""
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    next_attempt_at: datetime | None
    response_status: int | None
    """HTTP status of the last response."""
    error: str | None
    """Error of the last attempt."""
    created_at: datetime
    delivered_at: datetime | None


class DeliveryPage(BaseModel):
    data: list[DeliveryOut]
    has_more: bool


def webhook_out(webhook: Webhook) -> WebhookOut:
    return WebhookOut.model_validate(webhook, from_attributes=True)


def webhook_created(webhook: Webhook, secret: str | None) -> WebhookCreated:
    return WebhookCreated(**webhook_out(webhook).model_dump(), secret=secret)


def delivery_out(delivery: Delivery) -> DeliveryOut:
    return DeliveryOut(
        id=delivery.id,
        webhook_id=delivery.webhook_id,
        type=EventType(delivery.type),
        payload=message(delivery),
        status=delivery.status,  # type: ignore[arg-type]  # a CHECK holds it
        attempts=delivery.attempts,
        next_attempt_at=delivery.due_at if delivery.status == "pending" else None,
        response_status=delivery.response_status,
        error=delivery.error,
        created_at=delivery.created_at,
        delivered_at=delivery.delivered_at,
    )
