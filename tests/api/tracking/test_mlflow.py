"""A run in MLflow: in a small server in memory, and with -m exhaustive in a real one."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.settings import ApiSettings
from api.tracking.follower import FollowerPace
from contract.status import JobStatus
from store.jobs import actions
from store.session import Sessions
from store.trackings import TrackingTiming
from tests.api.tracking.mlflow_server import Memory, Mlflow, real_server, relaying
from tests.api.tracking.tracked_jobs import PATIENT, end, evaluate, is_in, loss, start, tracked, train
from tests.support.api import error_of, post_job, serve, submit
from tests.support.jobs import register
from tests.support.service import running
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(900)  # the first time, MLflow is installed


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.exhaustive)])
def mlflow(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mlflow]:
    if request.param == "memory":
        with relaying(Memory()) as server:
            yield server
    else:
        folder = tmp_path / "mlflow"
        folder.mkdir()
        with real_server(folder) as backend, relaying(backend) as server:
            server.seconds = 5
            yield server


@pytest.fixture
def allowing(settings: ApiSettings, sessions: Sessions) -> ApiSettings:
    """The servers of these tests have private addresses."""
    return settings.model_copy(update={"webhook_allow_private": True})


@pytest.fixture
def client(allowing: ApiSettings) -> Iterator[TestClient]:
    with serve(allowing, following=PATIENT) as client:
        yield client


@contextmanager
def impatient(settings: ApiSettings, mlflow: Mlflow) -> Iterator[TestClient]:
    waits = {"first_wait": timedelta(seconds=0.02), "longest_wait": timedelta(seconds=0.1)}
    timing = TrackingTiming(**waits)
    pace = FollowerPace(poll_seconds=0.02, send_seconds=mlflow.seconds, timing=timing)
    with serve(settings, following=pace) as client:
        yield client


def tracking(mlflow: Mlflow, **more: Any) -> dict[str, Any]:
    return {"mlflow": {"url": mlflow.url, **more}}


def losses(steps: int) -> list[tuple[int, float]]:
    return [(step, loss(step)) for step in range(1, steps + 1)]


def test_run_has_recipe_metrics_and_status(client: TestClient, sessions: Sessions, mlflow: Mlflow) -> None:
    more = {"experiment": "greetings", "tags": {"team": "a b"}}
    job_id = post_job(client, name="first", tracking=tracking(mlflow, **more))["id"]
    until(lambda: tracked(client, job_id)["status"] == "following")
    (run,) = mlflow.runs(job_id, "greetings")
    assert run["info"]["status"] == "SCHEDULED"
    start(sessions)
    evaluate(sessions, job_id, 0)
    train(sessions, job_id, 1, 250)
    evaluate(sessions, job_id, 250)
    end(sessions, job_id)
    said = is_in(client, job_id, "complete")
    (run,) = mlflow.runs(job_id, "greetings")
    assert said["run"] == run["info"]["run_id"]
    assert (said["type"], said["url"], said["step"], said["behind"], said["error"]) == (
        "mlflow", mlflow.url, 250, 0, None,
    )  # fmt: skip
    assert (run["info"]["run_name"], run["info"]["status"]) == ("first", "FINISHED")
    assert run["info"]["end_time"] > run["info"]["start_time"] - 1000
    assert {"key": "team", "value": "a b"} in run["data"]["tags"]
    params = {each["key"]: each["value"] for each in run["data"]["params"]}
    assert (params["adapter.r"], params["model"], params["dataset.path"]) == ("16", "tiny", "rows.jsonl")
    assert not [name for name in params if name.startswith("tracking")]
    assert mlflow.history(run, "loss") == losses(250)
    assert mlflow.history(run, "learning_rate") == [(step, 1e-4) for step in range(1, 251)]
    assert mlflow.history(run, "eval_loss") == [(0, 2), (250, 2)]


@pytest.mark.parametrize(("status", "theirs"), [(JobStatus.FAILED, "FAILED"), (JobStatus.CANCELLED, "KILLED")])
def test_retried_job_continues_its_run(
    client: TestClient, sessions: Sessions, mlflow: Mlflow, status: JobStatus, theirs: str
) -> None:
    job_id = post_job(client, tracking=tracking(mlflow))["id"]
    start(sessions)
    train(sessions, job_id, 1, 5)
    end(sessions, job_id, status=status)
    is_in(client, job_id, "complete")
    assert mlflow.runs(job_id)[0]["info"]["status"] == theirs
    with sessions.begin() as session:
        actions.retry(session, job_id)
    start(sessions)
    # It repeats the steps after its last training checkpoint.
    train(sessions, job_id, 4, 9, attempt=2)
    end(sessions, job_id, attempt=2)
    until(lambda: [each["info"]["status"] for each in mlflow.runs(job_id)] == ["FINISHED"])
    assert mlflow.history(mlflow.runs(job_id)[0], "loss") == losses(9)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 6))])
def test_each_step_arrives_once_whatever_fails(
    allowing: ApiSettings, sessions: Sessions, mlflow: Mlflow, seed: int
) -> None:
    chance = random.Random(seed)
    mlflow.faults = [chance.choice(["", "", "500", "lost", "hang", "429"]) for _ in range(40)]
    with impatient(allowing, mlflow) as client:
        job_id = post_job(client, tracking=tracking(mlflow))["id"]
        start(sessions)
        for first in range(1, 300, 30):
            train(sessions, job_id, first, first + 29)
            evaluate(sessions, job_id, first)
        end(sessions, job_id)
        is_in(client, job_id, "complete")
    assert mlflow.faults == []
    (run,) = mlflow.runs(job_id)
    assert mlflow.history(run, "loss") == losses(300)
    assert mlflow.history(run, "eval_loss") == [(first, 2) for first in range(1, 300, 30)]
    assert run["info"]["status"] == "FINISHED"


def test_two_processes_send_nothing_twice(allowing: ApiSettings, sessions: Sessions, mlflow: Mlflow) -> None:
    with serve(allowing, following=PATIENT) as client, serve(allowing, following=PATIENT):
        jobs = [post_job(client, tracking=tracking(mlflow))["id"] for _ in range(4)]
        for _ in jobs:
            start(sessions)
        for first in range(1, 200, 20):
            for job_id in jobs:
                train(sessions, job_id, first, first + 19)
        for job_id in jobs:
            end(sessions, job_id)
        for job_id in jobs:
            is_in(client, job_id, "complete")
    for job_id in jobs:
        (run,) = mlflow.runs(job_id)
        assert mlflow.history(run, "loss") == losses(200)
    # An uncertain position is looked up, and here every send is certain whose answer came in time.
    assert mlflow.unread or "runs/get" not in [path for path, _ in mlflow.requests][len(jobs) * 8 :]


def test_unreachable_tracker_disturbs_no_job(allowing: ApiSettings, sessions: Sessions, mlflow: Mlflow) -> None:
    mlflow.faults = ["hang"] * 3 + ["503"] * 100
    with impatient(allowing, mlflow) as client:
        job_id = post_job(client, tracking=tracking(mlflow))["id"]
        start(sessions)
        train(sessions, job_id, 1, 7)
        end(sessions, job_id)
        assert client.get(f"/jobs/{job_id}").json()["status"] == "succeeded"
        until(lambda: tracked(client, job_id)["error"] == f"no answer within {mlflow.seconds:g} s", seconds=60)
        until(lambda: tracked(client, job_id)["error"] == "MLflow answers 503: broken", seconds=30)
        said = tracked(client, job_id)
        assert (said["status"], said["behind"], said["step"]) == ("retrying", 7, 0)
        assert said["next_attempt_at"] is not None
        mlflow.faults = []
        is_in(client, job_id, "complete")
    assert mlflow.history(mlflow.runs(job_id)[0], "loss") == losses(7)


def test_server_of_something_else_is_reported(client: TestClient, mlflow: Mlflow) -> None:
    mlflow.faults = ["200"] * 1000
    job_id = post_job(client, tracking=tracking(mlflow))["id"]
    said = is_in(client, job_id, "retrying")
    assert said["error"] == "the answer is none of MLflow's: KeyError('experiment'); is the url right?"


def test_tracker_is_given_up_long_after_the_end(allowing: ApiSettings, sessions: Sessions, mlflow: Mlflow) -> None:
    mlflow.faults = ["500"] * 1000
    timing = TrackingTiming(first_wait=timedelta(seconds=0.02), longest_wait=timedelta(0), give_up=timedelta(0))
    with serve(allowing, following=FollowerPace(poll_seconds=0.02, timing=timing)) as client:
        job_id = post_job(client, tracking=tracking(mlflow))["id"]
        client.post(f"/jobs/{job_id}/cancel").raise_for_status()
        said = is_in(client, job_id, "given_up")
    assert said["error"] == "MLflow answers 500: broken"


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        ({"secret": "token"}, "Bearer hidden-value"),
        ({"secret": "token", "username": "anna"}, "Basic YW5uYTpoaWRkZW4tdmFsdWU="),
        ({}, None),
    ],
)
def test_secret_goes_to_the_tracker_alone(
    client: TestClient, sessions: Sessions, mlflow: Mlflow, more: dict[str, Any], sent: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    client.put("/secrets/token", json={"value": "hidden-value"}).raise_for_status()
    mlflow.faults = ["401"]
    job_id = post_job(client, tracking=tracking(mlflow, **more))["id"]
    until(lambda: tracked(client, job_id)["status"] == "following")
    assert {headers.get("authorization") for _, headers in mlflow.requests} == {sent}
    shown = [client.get(path).text for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/events?after=0", "/audit")]
    assert "hidden-value" not in "".join(shown) + caplog.text


def test_deleted_secret_is_reported_and_may_come_back(client: TestClient, mlflow: Mlflow) -> None:
    client.put("/secrets/token", json={"value": "x"}).raise_for_status()
    mlflow.faults = ["500"] * 1000
    job_id = post_job(client, tracking=tracking(mlflow, secret="token"))["id"]
    client.delete("/secrets/token").raise_for_status()
    until(lambda: "no secret token" in (tracked(client, job_id)["error"] or ""))
    mlflow.faults = []
    client.put("/secrets/token", json={"value": "y"}).raise_for_status()
    until(lambda: tracked(client, job_id)["status"] == "following")


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"url": "http://10.0.0.1"}, "url", "FINETUNED_WEBHOOK_ALLOW_PRIVATE=true"),
        ({"url": "ftp://example.com"}, "url", "https://"),
        ({"url": "https://anna:hidden@example.com"}, "url", "give username and secret"),
        ({"url": "https://example.com/?token=x"}, "url", "leave out what follows the path"),
        ({"url": "https://example.com", "secret": "token"}, "secret", "finetuned secrets set token"),
        ({"url": "https://example.com", "username": "anna"}, "", "username needs secret"),
        ({"url": "https://example.com", "tags": {"a": 1}}, "tags", "got 1"),
        ({}, "url", "required"),
    ],
)
def test_wrong_tracker_is_refused_by_name(
    settings: ApiSettings, sessions: Sessions, given: dict[str, Any], param: str, words: str
) -> None:
    with serve(settings) as client:
        error = error_of(submit(client, tracking={"mlflow": given}), 422, "recipe_invalid")
        planned = client.post("/plans", json={"model": "tiny", "dataset": "rows.jsonl", "tracking": {"mlflow": given}})
    assert error["param"] == f"tracking.mlflow.{param}".rstrip(".")
    assert words in error["message"]
    assert "hidden" not in error["message"]
    assert planned.json()["error"]["param"] == error["param"]


@pytest.mark.exhaustive
def test_killed_api_sends_each_step_once(
    home: Path, sessions: Sessions, mlflow: Mlflow, database_url: str, broker_url: str
) -> None:
    with running(home, database_url, broker_url, (), FINETUNED_WEBHOOK_ALLOW_PRIVATE="true") as service:
        with sessions.begin() as session:
            register(session)
        job_id = service.submit(tracking=tracking(mlflow))["id"]
        start(sessions)
        for first in (1, 21, 41):
            train(sessions, job_id, first, first + 19)
            # The next one waits until what it was sending counts as abandoned.
            with until_request(mlflow):
                service.api.kill()
                service.api.wait()
            service.start_api()
        end(sessions, job_id)
        until(lambda: service.job(job_id)["tracking"][0]["status"] == "complete", seconds=200)
    (run,) = mlflow.runs(job_id)
    assert mlflow.history(run, "loss") == losses(60)


@contextmanager
def until_request(mlflow: Mlflow) -> Iterator[None]:
    """Runs the block in the middle of the next send."""
    seen = len(mlflow.requests)
    until(lambda: len(mlflow.requests) > seen, seconds=180)
    yield
