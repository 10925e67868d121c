import re
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import AfterValidator

from api.body import described, json_body
from api.deps import Db, Settings
from api.idempotency import Keyed, Once, with_body
from api.schemas.webhooks import (
    DeliveryOut,
    DeliveryPage,
    NewWebhook,
    WebhookChange,
    WebhookCreated,
    WebhookDeleted,
    WebhookOut,
    WebhookPage,
)
from api.services import webhooks as service
from api.who import Who
from contract.quote import cut
from store.errors import DeliveryNotFound, WebhookNotFound

router = APIRouter(tags=["webhooks"])


def _webhook_id(value: str) -> str:
    """Raises WebhookNotFound for what can be no webhook's id."""
    if not re.fullmatch(r"wh_[0-9a-f]{24}", value):
        raise WebhookNotFound(cut(value))
    return value


def _delivery_id(value: str) -> str:
    """Raises DeliveryNotFound for what can be no delivery's id."""
    if not re.fullmatch(r"msg_[0-9a-f]{24}", value):
        raise DeliveryNotFound(cut(value))
    return value


WebhookId = Annotated[str, AfterValidator(_webhook_id)]
DeliveryId = Annotated[str, AfterValidator(_delivery_id)]
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("/webhooks", status_code=HTTPStatus.CREATED, openapi_extra=described(NewWebhook))
def create_webhook(
    db: Db, settings: Settings, who: Who, asked: Once, new: Annotated[NewWebhook, Depends(json_body(NewWebhook))]
) -> WebhookCreated:
    """Has an address told when a job of the owner's ends. The answer's secret, by which a receiver checks the
    signatures, is told this once."""
    return service.create(db, settings, who, with_body(asked, new.model_dump_json().encode()), new)


@router.get("/webhooks")
def list_webhooks(db: Db, who: Who, limit: Limit = 20, after: WebhookId | None = None) -> WebhookPage:
    return service.newest(db, who, limit, after)


@router.get("/webhooks/{webhook_id}")
def get_webhook(db: Db, who: Who, webhook_id: WebhookId) -> WebhookOut:
    return service.get(db, who, webhook_id)


@router.patch("/webhooks/{webhook_id}", openapi_extra=described(WebhookChange))
def update_webhook(
    db: Db,
    settings: Settings,
    who: Who,
    webhook_id: WebhookId,
    wanted: Annotated[WebhookChange, Depends(json_body(WebhookChange))],
) -> WebhookOut:
    """What waits for a webhook that is not `enabled` is sent when it is so again."""
    return service.change(db, settings, who, webhook_id, wanted)


@router.delete("/webhooks/{webhook_id}")
def delete_webhook(db: Db, who: Who, webhook_id: WebhookId) -> WebhookDeleted:
    """With its deliveries."""
    return service.delete(db, who, webhook_id)


@router.post("/webhooks/{webhook_id}/test", status_code=HTTPStatus.ACCEPTED)
def ping_webhook(db: Db, who: Who, asked: Keyed, webhook_id: WebhookId) -> DeliveryOut:
    """Sends a `ping`; its delivery tells how that went."""
    return service.ping(db, who, asked, webhook_id)


@router.get("/webhooks/{webhook_id}/deliveries")
def list_deliveries(
    db: Db, who: Who, webhook_id: WebhookId, limit: Limit = 20, after: DeliveryId | None = None
) -> DeliveryPage:
    """What was sent in the last 30 days and what is to be sent, newest first."""
    return service.deliveries(db, who, webhook_id, limit, after)


@router.post("/webhooks/deliveries/{delivery_id}/retry", status_code=HTTPStatus.ACCEPTED)
def retry_delivery(db: Db, who: Who, asked: Keyed, delivery_id: DeliveryId) -> DeliveryOut:
    """Sends a message again, now, with all its tries."""
    return service.retry(db, who, asked, delivery_id)
