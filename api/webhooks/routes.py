from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query

from api.auth.who import Who
from api.context import Context, Services
from api.errors import InvalidParameter
from api.http.body import described, json_body
from api.http.idempotency import Keyed, Once, idempotent
from api.http.ids import DeliveryId, WebhookId
from api.webhooks.public_address import Forbidden, check_url
from api.webhooks.schemas import (
    DeliveryOut,
    DeliveryPage,
    NewWebhook,
    WebhookChange,
    WebhookCreated,
    WebhookDeleted,
    WebhookOut,
    WebhookPage,
    delivery_out,
    webhook_created,
    webhook_out,
)
from store import webhooks
from store.access import audit
from store.paging import page

router = APIRouter(tags=["webhooks"])

Limit = Annotated[int, Query(ge=1, le=100)]


def _check_url(services: Services, url: str) -> None:
    """Raises InvalidParameter."""
    try:
        check_url(url, services.settings.webhook_allow_private)
    except (ValueError, Forbidden) as error:
        raise InvalidParameter("url", url, str(error)) from error


@router.post("/webhooks", status_code=HTTPStatus.CREATED, openapi_extra=described(NewWebhook))
def create_webhook(
    services: Context, who: Who, once: Once, new: Annotated[NewWebhook, Depends(json_body(NewWebhook))]
) -> WebhookCreated:
    """Sends messages to an address when jobs of the owner start or end. Only this answer has the secret, by which a
    receiver checks the signatures."""
    _check_url(services, new.url)
    with idempotent(services, once) as turn, services.sessions.begin() as session:
        if turn.made is not None:
            return webhook_created(webhooks.get(session, turn.made, who.scope), None)
        webhook, secret = webhooks.create(session, services.vault, who.owner, new.url, new.events)
        audit.record(session, who, "webhook.create", webhook.id, host=urlsplit(new.url).hostname)
        turn.complete(session, webhook.id)
        return webhook_created(webhook, secret)


@router.get("/webhooks")
def list_webhooks(services: Context, who: Who, limit: Limit = 20, after: WebhookId | None = None) -> WebhookPage:
    with services.sessions.begin() as session:
        found = page(webhooks.list_webhooks(session, who.scope, limit + 1, after), limit)
        return WebhookPage(data=[webhook_out(each) for each in found.rows], has_more=found.has_more)


@router.get("/webhooks/{webhook_id}")
def get_webhook(services: Context, who: Who, webhook_id: WebhookId) -> WebhookOut:
    with services.sessions.begin() as session:
        return webhook_out(webhooks.get(session, webhook_id, who.scope))


@router.patch("/webhooks/{webhook_id}", openapi_extra=described(WebhookChange))
def update_webhook(
    services: Context,
    who: Who,
    webhook_id: WebhookId,
    change: Annotated[WebhookChange, Depends(json_body(WebhookChange))],
) -> WebhookOut:
    """Messages for a webhook that is not `enabled` wait, and are sent when it is again."""
    if change.url is not None:
        _check_url(services, change.url)
    with services.sessions.begin() as session:
        webhook = webhooks.get(session, webhook_id, who.scope)
        for name, value in change.model_dump(mode="json", exclude_none=True).items():
            setattr(webhook, name, value)
        audit.record(session, who, "webhook.change", webhook_id)
        return webhook_out(webhook)


@router.delete("/webhooks/{webhook_id}")
def delete_webhook(services: Context, who: Who, webhook_id: WebhookId) -> WebhookDeleted:
    """Deletes a webhook and its deliveries."""
    with services.sessions.begin() as session:
        webhooks.delete(session, webhook_id, who.scope)
        audit.record(session, who, "webhook.delete", webhook_id)
    return WebhookDeleted(id=webhook_id)


@router.post("/webhooks/{webhook_id}/test", status_code=HTTPStatus.ACCEPTED)
def ping_webhook(services: Context, who: Who, once: Keyed, webhook_id: WebhookId) -> DeliveryOut:
    """Sends a `ping`; the delivery says how that went."""
    with idempotent(services, once) as turn, services.sessions.begin() as session:
        if turn.made is not None:
            return delivery_out(webhooks.get_delivery(session, turn.made, who.scope))
        delivery = webhooks.ping(session, webhooks.get(session, webhook_id, who.scope))
        audit.record(session, who, "webhook.ping", webhook_id)
        turn.complete(session, delivery.id)
        return delivery_out(delivery)


@router.get("/webhooks/{webhook_id}/deliveries")
def list_deliveries(
    services: Context, who: Who, webhook_id: WebhookId, limit: Limit = 20, after: DeliveryId | None = None
) -> DeliveryPage:
    """What was sent in the last 30 days and what is to be sent, newest first."""
    with services.sessions.begin() as session:
        found = page(webhooks.list_deliveries(session, webhook_id, who.scope, limit + 1, after), limit)
        return DeliveryPage(data=[delivery_out(each) for each in found.rows], has_more=found.has_more)


@router.post("/webhooks/deliveries/{delivery_id}/retry", status_code=HTTPStatus.ACCEPTED)
def retry_delivery(services: Context, who: Who, once: Keyed, delivery_id: DeliveryId) -> DeliveryOut:
    """Sends a message again, now, with all its attempts."""
    with idempotent(services, once) as turn, services.sessions.begin() as session:
        if turn.made is not None:
            return delivery_out(webhooks.get_delivery(session, turn.made, who.scope))
        delivery = webhooks.resend(session, delivery_id, who.scope)
        audit.record(session, who, "delivery.retry", delivery_id)
        turn.complete(session, delivery_id)
        return delivery_out(delivery)
