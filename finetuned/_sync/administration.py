"""Plans, workers, keys, quotas, secrets and webhooks."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from finetuned._sync.transport import Transport, part, recipe_body
from finetuned.objects.operations import Delivery, Key, Quota, Secret, Webhook, Worker
from finetuned.objects.plans import Plan

_PLAN_SECONDS = 90.0  # the service may read and tokenize a part of a large dataset


class Plans:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, recipe: dict[str, Any] | bytes) -> Plan:
        """Estimates what a recipe needs, without training. Raises InvalidRequest as `jobs.create` does."""
        answer = self._transport.json("POST", "/plans", timeout=_PLAN_SECONDS, **recipe_body(recipe))
        return Plan.from_json(answer)


class Workers:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Sequence[Worker]:
        """Lists the workers, each with its devices and the jobs on them."""
        answer = self._transport.json("GET", "/workers")
        return [Worker.from_json(each) for each in answer["data"]]


class Keys:
    """API keys; for admins."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, owner: str, name: str | None = None, admin: bool = False, expires_at: datetime | None = None
    ) -> Key:
        """Creates an API key for `owner`. Only this answer has its `secret`. `expires_at` has a time zone."""
        body: dict[str, Any] = {"owner": owner, "name": name, "admin": admin}
        if expires_at is not None:
            body["expires_at"] = expires_at.isoformat()
        return Key.from_json(self._transport.json("POST", "/keys", json=body))

    def list(self) -> Iterator[Key]:
        """Yields all API keys, revoked ones included."""
        for each in self._transport.pages("/keys"):
            yield Key.from_json(each)

    def revoke(self, key_id: str) -> Key:
        return Key.from_json(self._transport.json("DELETE", f"/keys/{part(key_id)}"))


class Quotas:
    """Limits of owners, and what they use; for admins."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Quota]:
        """Yields the owners by name."""
        for each in self._transport.pages("/quotas", cursor="owner"):
            yield Quota.from_json(each)

    def set(
        self,
        owner: str,
        *,
        running_jobs: int | None = None,
        queued_jobs: int | None = None,
        bytes: int | None = None,
    ) -> Quota:
        """Sets the limits of an owner, or with "*" of everybody without their own. Without a limit, the common one
        applies."""
        limits = {"running_jobs": running_jobs, "queued_jobs": queued_jobs, "bytes": bytes}
        return Quota.from_json(self._transport.json("PUT", f"/quotas/{part(owner)}", json=limits))


class Secrets:
    """Keys of trackers and hubs, which recipes name."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def set(self, name: str, value: str) -> Secret:
        """Stores a secret, in place of an earlier one with this name."""
        return Secret.from_json(self._transport.json("PUT", f"/secrets/{part(name)}", json={"value": value}))

    def list(self) -> Sequence[Secret]:
        answer = self._transport.json("GET", "/secrets")
        return [Secret.from_json(each) for each in answer["data"]]

    def delete(self, name: str) -> None:
        self._transport.send("DELETE", f"/secrets/{part(name)}")


class Webhooks:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, url: str, events: Sequence[str] = ()) -> Webhook:
        """Has the service post `events` to `url`; without any, those that end a job. Only this answer has the webhook's
        `secret`."""
        body = {"url": url} | ({"events": list(events)} if events else {})
        return Webhook.from_json(self._transport.json("POST", "/webhooks", json=body))

    def list(self) -> Iterator[Webhook]:
        for each in self._transport.pages("/webhooks"):
            yield Webhook.from_json(each)

    def enable(self, webhook_id: str) -> Webhook:
        """Sends the messages that wait since the webhook was disabled."""
        return self._change(webhook_id, True)

    def disable(self, webhook_id: str) -> Webhook:
        """Has messages to a webhook wait until it is enabled."""
        return self._change(webhook_id, False)

    def _change(self, webhook_id: str, enabled: bool) -> Webhook:
        body = {"enabled": enabled}
        return Webhook.from_json(self._transport.json("PATCH", f"/webhooks/{part(webhook_id)}", json=body))

    def delete(self, webhook_id: str) -> None:
        self._transport.send("DELETE", f"/webhooks/{part(webhook_id)}")

    def test(self, webhook_id: str) -> Delivery:
        """Sends a ping to a webhook; gives its delivery, which is still pending."""
        return Delivery.from_json(self._transport.json("POST", f"/webhooks/{part(webhook_id)}/test"))

    def deliveries(self, webhook_id: str) -> Iterator[Delivery]:
        """Yields the messages of a webhook, those that are still to be sent included."""
        for each in self._transport.pages(f"/webhooks/{part(webhook_id)}/deliveries"):
            yield Delivery.from_json(each)

    def retry(self, delivery_id: str) -> Delivery:
        """Sends a message again, now."""
        return Delivery.from_json(self._transport.json("POST", f"/webhooks/deliveries/{part(delivery_id)}/retry"))
