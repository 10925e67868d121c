import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import certifi
import openai
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from standardwebhooks.webhooks import WebhookVerificationError

from api.background.webhook_sender import KEPT, SenderPace
from api.settings import ApiSettings
from api.webhooks import public_address
from contract.failure import Failure, FailureCode
from contract.status import JobStatus
from store import webhooks
from store.access import keys
from store.jobs import actions, jobs
from store.jobs.attempts import AttemptEnd, finish
from store.models import AuditEntry, Delivery
from store.session import Sessions
from store.webhooks import DeliveryTiming
from tests.api.webhooks.receiver import Receiver, receiving
from tests.support.api import serve
from tests.support.certificates import Authority
from tests.support.jobs import RETRIES, claim, create_job, make_recipe
from tests.support.settings import VAULT
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(60)


OFTEN = SenderPace(poll_seconds=0.02)
SOON = timedelta(seconds=0.05)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def allowing(settings: ApiSettings, sessions: Sessions) -> ApiSettings:
    """The receivers of these tests have private addresses."""
    return settings.model_copy(update={"webhook_allow_private": True})


@pytest.fixture
def client(allowing: ApiSettings) -> Iterator[TestClient]:
    with serve(allowing, sender=OFTEN) as client:
        yield client


def retrying(waits: int) -> SenderPace:
    return replace(OFTEN, delivery=DeliveryTiming(waits=(SOON,) * waits))


def add(client: TestClient, url: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/webhooks", json={"url": url, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def log(client: TestClient, webhook: dict[str, Any]) -> list[dict[str, Any]]:
    return client.get(f"/webhooks/{webhook['id']}/deliveries").json()["data"]


def failed_as(client: TestClient, webhook: dict[str, Any], words: str) -> bool:
    return words in (log(client, webhook)[0]["error"] or "")


def ping(client: TestClient, webhook: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(f"/webhooks/{webhook['id']}/test")
    assert answer.status_code == 202, answer.text
    return answer.json()


def sent(client: TestClient, webhook: dict[str, Any], **reported: Any) -> dict[str, Any]:
    """The latest delivery, once it is as `reported`."""
    return until(lambda: [each for each in log(client, webhook)[:1] if reported.items() <= each.items()])[0]


def test_ended_job_sends_a_signed_message(client: TestClient, sessions: Sessions, receiver: Receiver) -> None:
    webhook = add(client, receiver.url, events=["job.succeeded", "fine_tuning.job.succeeded"])
    job_id = create_job(sessions)
    with sessions.begin() as session:
        job = claim(session)
        assert job is not None
        finish(session, job_id, 1, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
    until(lambda: len(receiver.bodies) == 2)
    reported = [receiver.message(place, webhook["secret"]) for place in (0, 1)]
    assert {each["type"] for each in reported} == {"job.succeeded", "fine_tuning.job.succeeded"}
    for each in reported:
        assert set(each) == {"id", "object", "created_at", "type", "data"}
        assert (each["object"], each["data"]) == ("event", {"id": job_id})
        assert str(each["id"]).startswith("evt_")
        assert abs(float(str(each["created_at"])) - time.time()) < 30
    until(lambda: all(each["status"] == "delivered" for each in log(client, webhook)))
    assert {each["id"] for each in log(client, webhook)} == {each["webhook-id"] for each in receiver.headers}
    assert [(each["attempts"], each["response_status"], each["next_attempt_at"]) for each in log(client, webhook)] == [
        (1, 204, None)
    ] * 2
    with pytest.raises(WebhookVerificationError):
        receiver.message(0, add(client, receiver.url)["secret"])


@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_openai_sdk_takes_a_message(
    client: TestClient, sessions: Sessions, receiver: Receiver, status: JobStatus
) -> None:
    kind = f"fine_tuning.job.{status}"
    webhook = add(client, receiver.url, events=[kind])
    job_id = create_job(sessions)
    failure = Failure(code=FailureCode.LOSS_NOT_FINITE, message="the loss is NaN")
    with sessions.begin() as session:
        assert claim(session) is not None
        finish(session, job_id, 1, AttemptEnd(status, failure if status is JobStatus.FAILED else None), RETRIES)
    until(lambda: receiver.bodies)
    sdk = openai.OpenAI(api_key="none", webhook_secret=webhook["secret"])
    event = sdk.webhooks.unwrap(receiver.bodies[0], receiver.headers[0])
    assert (event.type, event.object) == (kind, "event")
    assert event.model_dump()["data"]["id"] == job_id


def test_refused_delivery_is_retried_with_its_id(allowing: ApiSettings, receiver: Receiver) -> None:
    receiver.statuses = [500, 302, 404]
    with serve(allowing, sender=retrying(3)) as client:
        webhook = add(client, receiver.url)
        message_id = ping(client, webhook)["id"]
        assert sent(client, webhook, status="delivered")["attempts"] == 4
    assert [each["webhook-id"] for each in receiver.headers] == [message_id] * 4
    for place in range(4):
        assert receiver.message(place, webhook["secret"])["type"] == "ping"


def test_failed_delivery_can_be_sent_again(allowing: ApiSettings, receiver: Receiver) -> None:
    receiver.statuses = [500, 503]
    with serve(allowing, sender=retrying(1)) as client:
        webhook = add(client, receiver.url)
        message = ping(client, webhook)
        failed = sent(client, webhook, status="failed")
        assert (failed["attempts"], failed["response_status"], failed["error"]) == (2, 503, "the receiver answered 503")
        assert client.post(f"/webhooks/deliveries/{message['id']}/retry").status_code == 202
        assert sent(client, webhook, status="delivered")["attempts"] == 1
        assert len({each["webhook-id"] for each in receiver.headers}) == 1


def test_message_that_nobody_took_waits_longer_each_time(
    client: TestClient, receiver: Receiver, sessions: Sessions
) -> None:
    receiver.statuses = [500]
    webhook = add(client, receiver.url)
    ping(client, webhook)
    first = sent(client, webhook, attempts=1, response_status=500)
    assert first["status"] == "pending"
    with sessions.begin() as session:
        wait = session.scalar(sa.select(Delivery.due_at - sa.func.now()))
    assert wait is not None
    assert timedelta(seconds=1) < wait <= timedelta(seconds=5)
    waits = DeliveryTiming().waits
    assert sorted(waits) == list(waits)
    assert timedelta(days=3) < sum(waits, timedelta(0)) < timedelta(days=4)


def test_gone_receiver_is_disabled(client: TestClient, receiver: Receiver) -> None:
    receiver.statuses = [410]
    webhook = add(client, receiver.url)
    ping(client, webhook)
    sent(client, webhook, status="failed", response_status=410)
    assert client.get(f"/webhooks/{webhook['id']}").json()["enabled"] is False
    ping(client, webhook)
    time.sleep(0.2)
    assert len(receiver.bodies) == 1
    client.patch(f"/webhooks/{webhook['id']}", json={"enabled": True})
    sent(client, webhook, status="delivered")


def test_redirect_is_not_followed(client: TestClient, receiver: Receiver) -> None:
    with receiving() as other:
        receiver.statuses, receiver.redirect = [307], other.url
        webhook = add(client, receiver.url)
        ping(client, webhook)
        assert sent(client, webhook, response_status=307)["status"] == "pending"
        assert other.bodies == []


def test_address_that_does_not_answer_is_told_of(client: TestClient, receiver: Receiver) -> None:
    with receiving() as gone:
        pass
    webhook = add(client, gone.url)
    ping(client, webhook)
    until(lambda: "attempts failed" in (log(client, webhook)[0]["error"] or ""))


def test_receiver_that_never_answers_is_left(allowing: ApiSettings, receiver: Receiver) -> None:
    receiver.hold = threading.Event()
    with serve(allowing, sender=replace(OFTEN, send_seconds=0.3)) as client:
        webhook = add(client, receiver.url)
        ping(client, webhook)
        until(lambda: log(client, webhook)[0]["error"] == "no answer within 0 s")


def test_message_to_a_private_address_is_refused(settings: ApiSettings, sessions: Sessions, receiver: Receiver) -> None:
    with serve(settings, sender=OFTEN) as client:
        refused = client.post("/webhooks", json={"url": receiver.url})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "url")
        assert "not a public address" in refused.json()["error"]["message"]
        # A name is known by its address alone, when something is to be sent.
        for host in ("localhost", "2130706433", "0x7f.1"):
            webhook = add(client, f"http://{host}:{receiver.port}/")
            path = f"/webhooks/{webhook['id']}"
            changed = client.patch(path, json={"url": receiver.url})
            assert (changed.status_code, changed.json()["error"]["param"]) == (422, "url")
            assert client.get(path).json()["url"] == webhook["url"]
            ping(client, webhook)
            until(partial(failed_as, client, webhook, "not a public address"))
    assert receiver.bodies == []


def test_checked_address_is_the_one_that_is_called(
    client: TestClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that says another thing at each question (DNS rebinding)."""
    requested = []

    async def resolve(self: asyncio.AbstractEventLoop, host: str, port: int, **_: Any) -> list[Any]:
        requested.append(host)
        return [(2, 1, 6, "", ("127.0.0.1" if len(requested) == 1 else "127.0.0.2", port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    webhook = add(client, f"http://rebinding.example:{receiver.port}/x?y=1")
    ping(client, webhook)
    sent(client, webhook, status="delivered")
    assert [host for host in requested if host == "rebinding.example"] == ["rebinding.example"]
    assert receiver.headers[0]["host"] == f"rebinding.example:{receiver.port}"


def test_certificate_is_checked_against_the_name(
    allowing: ApiSettings, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(self: asyncio.AbstractEventLoop, host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    authority = Authority(tmp_path)
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    # The authorities of the public web, in the place of which it is.
    monkeypatch.setattr(certifi, "where", lambda: str(authority.file))
    with serve(allowing, sender=OFTEN) as client:
        with receiving(authority.certify("hooks.example")) as its_own:
            webhook = add(client, f"https://hooks.example:{its_own.port}/")
            ping(client, webhook)
            sent(client, webhook, status="delivered")
        assert its_own.message(0, webhook["secret"])["type"] == "ping"
        assert (its_own.names, its_own.headers[0]["host"]) == (["hooks.example"], f"hooks.example:{its_own.port}")
        for certified in ("other.example", "127.0.0.1"):
            with receiving(authority.certify(certified)) as anothers:
                webhook = add(client, f"https://hooks.example:{anothers.port}/")
                ping(client, webhook)
                until(partial(failed_as, client, webhook, "CERTIFICATE_VERIFY_FAILED"))
            assert anothers.bodies == []


def test_one_private_address_of_several_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def resolve(self: asyncio.AbstractEventLoop, host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", (address, port)) for address in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    with pytest.raises(public_address.Forbidden):
        asyncio.run(public_address.addresses_of("both.example", 80, allow_private=False))


def test_delivery_of_a_dead_sender_is_repeated(allowing: ApiSettings, receiver: Receiver) -> None:
    claiming = replace(OFTEN, delivery=DeliveryTiming(claimed=timedelta(seconds=0.3)))
    receiver.hold = threading.Event()
    with serve(allowing, sender=claiming) as client:
        webhook = add(client, receiver.url)
        message = ping(client, webhook)
        until(lambda: receiver.bodies)
    # It is gone with its request under way.
    receiver.hold.set()
    with serve(allowing, sender=claiming) as client:
        sent(client, webhook, status="delivered")
    assert {each["webhook-id"] for each in receiver.headers} == {message["id"]}
    assert len(receiver.bodies) == 2


def test_owners_have_webhooks_of_their_own(allowing: ApiSettings, sessions: Sessions, receiver: Receiver) -> None:
    keyed = allowing.model_copy(update={"require_keys": True})
    with sessions.begin() as session:
        secrets = {name: keys.create(session, name, None, False)[1] for name in ("anna", "bert")}
    with serve(keyed, sender=OFTEN) as client:
        as_owner = {name: {"authorization": f"Bearer {secret}"} for name, secret in secrets.items()}
        body = {"url": receiver.url, "events": ["job.cancelled"]}
        webhook = client.post("/webhooks", json=body, headers=as_owner["anna"]).json()
        assert client.get("/webhooks", headers=as_owner["bert"]).json() == {"data": [], "has_more": False}
        message = client.post(f"/webhooks/{webhook['id']}/test", headers=as_owner["anna"]).json()
        for method, path in (
            ("GET", f"/webhooks/{webhook['id']}"),
            ("PATCH", f"/webhooks/{webhook['id']}"),
            ("DELETE", f"/webhooks/{webhook['id']}"),
            ("GET", f"/webhooks/{webhook['id']}/deliveries"),
            ("POST", f"/webhooks/{webhook['id']}/test"),
            ("POST", f"/webhooks/deliveries/{message['id']}/retry"),
            ("GET", f"/webhooks?after={webhook['id']}"),
        ):
            answer = client.request(method, path, headers=as_owner["bert"])
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
        for owner in ("bert", "anna"):
            with sessions.begin() as session:
                actions.cancel(session, new_job_in(session, owner))
        until(lambda: len(receiver.bodies) == 2)
        kinds = [receiver.message(place, webhook["secret"])["type"] for place in (0, 1)]
        assert sorted(map(str, kinds)) == ["job.cancelled", "ping"]
        time.sleep(0.1)
        assert len(receiver.bodies) == 2
    with sessions.begin() as session:
        done = session.scalars(sa.select(AuditEntry).where(AuditEntry.action == "webhook.create")).one()
        assert (done.owner, done.target) == ("anna", webhook["id"])


def new_job_in(session: Any, owner: str) -> str:
    return jobs.create(session, make_recipe(), owner).id


def test_secret_is_told_once(client: TestClient) -> None:
    webhook = add(client, "https://example.com/hook")
    assert webhook["secret"].startswith("whsec_")
    for path in ("/webhooks", f"/webhooks/{webhook['id']}"):
        assert webhook["secret"] not in client.get(path).text


def test_webhooks_are_changed_listed_and_deleted(client: TestClient, receiver: Receiver, sessions: Sessions) -> None:
    ids = [add(client, receiver.url)["id"] for _ in range(3)]
    page = client.get("/webhooks?limit=2").json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    rest = client.get("/webhooks", params={"after": ids[1]}).json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    changed = client.patch(f"/webhooks/{ids[0]}", json={"events": ["job.started", "job.paused"]}).json()
    assert (changed["events"], changed["url"]) == (["job.started", "job.paused"], receiver.url)
    ping(client, {"id": ids[0]})
    sent(client, {"id": ids[0]}, status="delivered")
    assert client.delete(f"/webhooks/{ids[0]}").json() == {"id": ids[0], "deleted": True}
    assert client.delete(f"/webhooks/{ids[0]}").status_code == 404
    with sessions.begin() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Delivery)) == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "url"),
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://example.com/\u0000"}, "url"),
        ({"url": "https://example.com", "events": []}, "events"),
        ({"url": "https://example.com", "events": ["ping"]}, "events"),
        ({"url": "https://example.com", "events": ["job.done"]}, "events"),
        ({"url": "https://example.com", "secret": "mine"}, "secret"),
    ],
)
def test_invalid_webhook_is_refused_by_field(client: TestClient, body: dict[str, Any], param: str) -> None:
    answer = client.post("/webhooks", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)


def test_owner_has_so_many_and_no_more(client: TestClient) -> None:
    for _ in range(webhooks.MOST):
        add(client, "https://example.com")
    answer = client.post("/webhooks", json={"url": "https://example.com"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "quota_exceeded")


def test_only_the_last_failure_is_an_end(sessions: Sessions) -> None:
    with sessions.begin() as session:
        every = [each for each in webhooks.EventType if each != "ping"]
        webhook_id = webhooks.create(session, VAULT, "default", "https://example.com", every)[0].id
    job_id = create_job(sessions)
    lost = Failure(code=FailureCode.TRAINER_KILLED, message="killed")
    for _ in range(RETRIES.most + 1):
        with sessions.begin() as session:
            job = claim(session)
            assert job is not None
            finish(session, job_id, job.attempt, AttemptEnd(JobStatus.FAILED, lost), RETRIES)
    with sessions.begin() as session:
        kinds = [each.type for each in webhooks.list_deliveries(session, webhook_id, None, 100, None)]
    assert sorted(kinds) == ["fine_tuning.job.failed", "job.failed", *["job.started"] * (RETRIES.most + 1)]


def test_uncommitted_event_sends_no_message(sessions: Sessions) -> None:
    with sessions.begin() as session:
        webhook_id = webhooks.create(session, VAULT, "default", "https://example.com", [*webhooks.EventType])[0].id
    job_id = create_job(sessions)
    with sessions() as session:
        actions.cancel(session, job_id)
        session.rollback()
    with sessions.begin() as session:
        assert webhooks.list_deliveries(session, webhook_id, None, 100, None) == []


def test_two_senders_never_take_the_same_message(sessions: Sessions) -> None:
    with sessions.begin() as session:
        webhook, _ = webhooks.create(session, VAULT, "default", "https://example.com", list(webhooks.EventType))
        for _ in range(30):
            webhooks.ping(session, webhook)
    with sessions.begin() as one, sessions.begin() as other:
        mine, others = webhooks.claim(one, 20, DeliveryTiming()), webhooks.claim(other, 20, DeliveryTiming())
    assert (len(mine), len(others)) == (20, 10)
    assert not {each.id for each in mine} & {each.id for each in others}
    with sessions.begin() as session:
        assert webhooks.claim(session, 20, DeliveryTiming()) == []


def test_old_messages_are_pruned_unless_waiting(sessions: Sessions) -> None:
    with sessions.begin() as session:
        webhook, _ = webhooks.create(session, VAULT, "default", "https://example.com", list(webhooks.EventType))
        kept = {status: webhooks.ping(session, webhook).id for status in ("pending", "delivered", "failed")}
        for status, message_id in kept.items():
            old = {"status": status, "created_at": sa.func.now() - timedelta(days=31)}
            session.execute(sa.update(Delivery).where(Delivery.id == message_id).values(old))
    with sessions.begin() as session:
        webhooks.prune(session, KEPT)
        assert list(session.scalars(sa.select(Delivery.status))) == ["pending"]
