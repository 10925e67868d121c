"""Takes and tells of webhooks, and of what was sent to them."""

from functools import partial
from urllib.parse import urlsplit

from api.errors import InvalidParameter
from api.idempotency import Settle, once, once_by_key
from api.public_address import Forbidden, check_url
from api.schemas.webhooks import (
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
from api.settings import ApiSettings
from store import webhooks
from store.access import audit
from store.access.idempotent_requests import Asked
from store.access.principal import Principal
from store.session import Sessions


def create(sessions: Sessions, settings: ApiSettings, who: Principal, asked: Asked, new: NewWebhook) -> WebhookCreated:
    """Raises InvalidParameter, QuotaExceeded, RequestReused, StillAtWork."""
    _check_url(settings, new.url)

    def make(settle: Settle) -> WebhookCreated:
        with sessions.begin() as session:
            webhook = webhooks.create(session, who.owner, new.url, new.events)
            audit.record(session, who, "webhook.create", webhook.id, host=urlsplit(new.url).hostname)
            settle(session, webhook.id)
            return webhook_created(webhook, webhook.secret)

    def again(webhook_id: str) -> WebhookCreated:
        with sessions.begin() as session:
            return webhook_created(webhooks.get(session, webhook_id, who.scope), None)

    return once(sessions, asked, make, again)


def _check_url(settings: ApiSettings, url: str) -> None:
    try:
        check_url(url, settings.webhook_allow_private)
    except (ValueError, Forbidden) as error:
        raise InvalidParameter("url", url, str(error)) from error


def newest(sessions: Sessions, who: Principal, limit: int, after: str | None) -> WebhookPage:
    """Raises WebhookNotFound for an unknown `after`."""
    with sessions.begin() as session:
        found = webhooks.newest(session, who.scope, limit + 1, after)
        return WebhookPage(data=[webhook_out(each) for each in found[:limit]], has_more=len(found) > limit)


def get(sessions: Sessions, who: Principal, webhook_id: str) -> WebhookOut:
    """Raises WebhookNotFound."""
    with sessions.begin() as session:
        return webhook_out(webhooks.get(session, webhook_id, who.scope))


def change(
    sessions: Sessions, settings: ApiSettings, who: Principal, webhook_id: str, wanted: WebhookChange
) -> WebhookOut:
    """Raises InvalidParameter, WebhookNotFound."""
    if wanted.url is not None:
        _check_url(settings, wanted.url)
    with sessions.begin() as session:
        webhook = webhooks.get(session, webhook_id, who.scope)
        for name, value in wanted.model_dump(mode="json", exclude_none=True).items():
            setattr(webhook, name, value)
        audit.record(session, who, "webhook.change", webhook_id)
        return webhook_out(webhook)


def delete(sessions: Sessions, who: Principal, webhook_id: str) -> WebhookDeleted:
    """Raises WebhookNotFound."""
    with sessions.begin() as session:
        webhooks.delete(session, webhook_id, who.scope)
        audit.record(session, who, "webhook.delete", webhook_id)
    return WebhookDeleted(id=webhook_id)


def ping(sessions: Sessions, who: Principal, asked: Asked, webhook_id: str) -> DeliveryOut:
    """Has a ping sent. Raises WebhookNotFound, RequestReused, StillAtWork."""

    def make(settle: Settle) -> DeliveryOut:
        with sessions.begin() as session:
            delivery = webhooks.ping(session, webhooks.get(session, webhook_id, who.scope))
            audit.record(session, who, "webhook.ping", webhook_id)
            settle(session, delivery.id)
            return delivery_out(delivery)

    return once_by_key(sessions, asked, make, partial(_delivery, sessions, who))


def _delivery(sessions: Sessions, who: Principal, delivery_id: str) -> DeliveryOut:
    with sessions.begin() as session:
        return delivery_out(webhooks.get_delivery(session, delivery_id, who.scope))


def deliveries(sessions: Sessions, who: Principal, webhook_id: str, limit: int, after: str | None) -> DeliveryPage:
    """Raises WebhookNotFound, DeliveryNotFound."""
    with sessions.begin() as session:
        found = webhooks.log(session, webhook_id, who.scope, limit + 1, after)
        return DeliveryPage(data=[delivery_out(each) for each in found[:limit]], has_more=len(found) > limit)


def retry(sessions: Sessions, who: Principal, asked: Asked, delivery_id: str) -> DeliveryOut:
    """Raises DeliveryNotFound, RequestReused, StillAtWork."""

    def make(settle: Settle) -> DeliveryOut:
        with sessions.begin() as session:
            delivery = webhooks.send_again(session, delivery_id, who.scope)
            audit.record(session, who, "delivery.retry", delivery_id)
            settle(session, delivery_id)
            return delivery_out(delivery)

    return once_by_key(sessions, asked, make, partial(_delivery, sessions, who))
