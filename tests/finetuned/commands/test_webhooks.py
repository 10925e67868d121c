import json

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi


def test_webhooks_are_added_listed_tested_and_deleted(api: FakeApi) -> None:
    webhook = {"id": "wh_1", "owner": "anna", "url": "https://example.com", "events": ["job.failed"], "enabled": True}
    sent = {"id": "msg_1", "type": "ping", "status": "failed", "attempts": 3, "created_at": "2026-01-02T03:04:05Z"}
    api.answers["POST /webhooks"] = (201, {**webhook, "secret": "whsec_once"})
    api.answers["GET /webhooks"] = (200, {"data": [webhook], "has_more": False})
    api.answers["POST /webhooks/wh_1/test"] = (202, sent)
    log = {"data": [{**sent, "error": "it answered 500"}], "has_more": False}
    api.answers["GET /webhooks/wh_1/deliveries"] = (200, log)
    api.answers["DELETE /webhooks/wh_1"] = (200, {"id": "wh_1", "deleted": True})
    here = ("--url", api.url)
    added = finetuned("webhooks", "add", "https://example.com", "--event", "job.failed", *here)
    assert (added.returncode, added.stdout) == (0, "whsec_once\n")
    assert json.loads(api.bodies[-1]) == {"url": "https://example.com", "events": ["job.failed"]}
    assert "https://example.com" in finetuned("webhooks", *here, COLUMNS="200").stdout
    assert "finetuned webhooks log wh_1" in finetuned("webhooks", "test", "wh_1", *here).stderr
    assert "it answered 500" in finetuned("webhooks", "log", "wh_1", *here, COLUMNS="200").stdout
    api.answers["PATCH /webhooks/wh_1"] = (200, {**webhook, "enabled": False})
    assert "finetuned webhooks enable wh_1" in finetuned("webhooks", "disable", "wh_1", *here).stderr
    assert json.loads(api.bodies[-1]) == {"enabled": False}
    assert "wh_1 is enabled" in finetuned("webhooks", "enable", "wh_1", *here).stderr
    assert json.loads(api.bodies[-1]) == {"enabled": True}
    api.answers["POST /webhooks/deliveries/msg_1/retry"] = (202, {**sent, "webhook_id": "wh_1"})
    assert "finetuned webhooks log wh_1" in finetuned("webhooks", "retry", "msg_1", *here).stderr
    assert "wh_1 is deleted" in finetuned("webhooks", "delete", "wh_1", *here).stderr
