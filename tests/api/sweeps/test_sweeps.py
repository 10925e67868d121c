"""Sweeps by the API on the real database; no worker takes their jobs."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from contract.events import EvaluationEvent
from store.session import Sessions
from tests.support.api import Response, bearer, error_of, make_key, post_job, upload
from tests.support.events import metric
from tests.support.jobs import RECIPE, claim, record_events
from tests.support.waiting import until

GRID = {"optimizer.learning_rate": [1e-4, 2e-4], "adapter.r": [8, 16]}


def post(client: TestClient, headers: dict[str, str] | None = None, **sweep: Any) -> Response:
    body = {"recipe": RECIPE, **sweep}
    return client.post("/sweeps", json=body if "list" in body else {"grid": GRID, **body}, headers=headers)


def make(client: TestClient, headers: dict[str, str] | None = None, **sweep: Any) -> dict[str, Any]:
    answer = post(client, headers, **sweep)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def get(client: TestClient, sweep_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/sweeps/{sweep_id}").json()
    return found


def job_count(engine: sa.Engine) -> tuple[int, int]:
    """Numbers of jobs and sweeps."""
    with engine.connect() as connection:
        row = connection.execute(sa.text("SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM sweeps)")).one()
        return row[0], row[1]


def test_grid_becomes_a_job_for_each_point(client: TestClient) -> None:
    made = make(client, name="search")
    assert (made["name"], made["owner"], made["best"]) == ("search", "default", None)
    assert made["fields"] == ["optimizer.learning_rate", "adapter.r"]
    assert [run["values"] for run in made["jobs"]] == [
        {"optimizer.learning_rate": rate, "adapter.r": rank} for rate in (1e-4, 2e-4) for rank in (8, 16)
    ]
    for run in made["jobs"]:
        job = client.get(f"/jobs/{run['id']}").json()
        rate, rank = job["recipe"]["optimizer"]["learning_rate"], job["recipe"]["adapter"]["r"]
        assert job["sweep_id"] == made["id"]
        assert run["values"] == {"optimizer.learning_rate": rate, "adapter.r": rank}
        assert job["name"] == f"search optimizer.learning_rate={rate} adapter.r={rank}"
        assert (run["status"], run["loss"], run["eval_loss"], run["step"]) == ("queued", None, None, None)
    assert get(client, made["id"]) == made


def test_runs_wait_in_the_order_they_were_written(client: TestClient) -> None:
    made = make(client, list=[{"seed": seed} for seed in range(20)])
    listed = client.get("/jobs?limit=100").json()["data"]
    assert [job["id"] for job in reversed(listed)] == [run["id"] for run in made["jobs"]]


def test_job_of_its_own_has_no_sweep(client: TestClient) -> None:
    assert post_job(client)["sweep_id"] is None


@pytest.mark.parametrize(
    ("sweep", "code", "message"),
    [
        ({"grid": {"adapter.r": [8, 0]}}, "recipe_invalid", "grid.adapter.r[1]: got 0; "),
        ({"list": [{"adapter.r": 8}, {"adapter.rank": 8}]}, "recipe_invalid", "list[1].adapter.rank: unknown field; "),
        ({"grid": {"dataset": ["rows.jsonl", "no.jsonl"]}}, "dataset_not_found", "grid.dataset[1]: "),
        ({"grid": {"model": ["tiny", "no/such/model"]}}, "model_not_found", "grid.model[1]: "),
        (
            {"list": [{"adapter.target_modules": name} for name in ("all-linear", ["none"])]},
            "target_modules_unmatched",
            "list[1].adapter.target_modules: ",
        ),
        ({"recipe": {"model": "tiny", "dataset": "no.jsonl"}}, "dataset_not_found", "recipe.dataset: "),
        ({"grid": {"seed": []}}, "invalid_parameter", "grid.seed: got []; "),
        ({"grid": {"seed": [*range(101)]}}, "invalid_parameter", "grid: got 101; "),
        ({"grid": {"seed": 5}}, "invalid_parameter", "grid: got "),
        ({"grid": [1]}, "invalid_parameter", "grid: got "),
        ({"recipe": None}, "invalid_parameter", "recipe: got null; "),
        ({"runs": 5}, "invalid_parameter", "runs: unknown field; "),
    ],
)
def test_refused_sweep_names_the_value_and_makes_nothing(
    client: TestClient, engine: sa.Engine, sweep: dict[str, Any], code: str, message: str
) -> None:
    error = error_of(post(client, **sweep), 422, code)
    assert error["message"].startswith(message)
    assert error["param"] == message.partition(":")[0]
    assert job_count(engine) == (0, 0)


def test_value_given_twice_in_the_body_is_refused(client: TestClient) -> None:
    body = '{"recipe": {"model": "tiny", "dataset": "rows.jsonl"}, "grid": {"seed": [1], "seed": [2]}}'
    answer = client.post("/sweeps", content=body, headers={"content-type": "application/json"})
    assert error_of(answer, 422, "invalid_parameter")["param"] == "grid.seed"


def test_one_idempotency_key_makes_one_sweep(client: TestClient, engine: sa.Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(post, client, {"idempotency-key": "one"}) for _ in range(4)]
        statuses = {answer.result().status_code for answer in answers}
    assert 201 in statuses <= {201, 409}
    again = make(client, {"idempotency-key": "one"})
    assert job_count(engine) == (4, 1)
    assert again["id"] == client.get("/sweeps").json()["data"][0]["id"]
    error_of(post(client, {"idempotency-key": "one"}, name="other"), 422, "idempotency_key_reused")


def test_sweep_killed_halfway_makes_nothing(client: TestClient, engine: sa.Engine) -> None:
    stuck = sa.text(
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO audit%'"
    )
    with engine.connect() as connection, ThreadPoolExecutor(1) as pool:
        connection.execute(sa.text("LOCK TABLE audit IN ACCESS EXCLUSIVE MODE"))
        answer = pool.submit(post, client, {"idempotency-key": "one"})
        # All jobs are inserted, and the transaction waits to record them.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            pid = until(lambda: other.execute(stuck).scalar())
            other.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        assert answer.result().status_code == 503
    assert job_count(engine) == (0, 0)
    assert len(make(client, {"idempotency-key": "one"})["jobs"]) == 4
    assert job_count(engine) == (4, 1)


def test_quota_counts_all_jobs_of_a_sweep(client: TestClient, engine: sa.Engine) -> None:
    client.put("/quotas/default", json={"queued_jobs": 5}).raise_for_status()
    post_job(client)
    post_job(client)
    error = error_of(post(client), 429, "quota_exceeded")
    assert error["message"].startswith(
        "default has 2 jobs that wait, and may have 5, which leaves no room for 4 more; "
    )
    assert job_count(engine) == (2, 0)
    make(client, list=[{"seed": seed} for seed in range(3)])


def test_concurrent_sweeps_do_not_pass_the_quota_together(client: TestClient, engine: sa.Engine) -> None:
    client.put("/quotas/default", json={"queued_jobs": 6}).raise_for_status()
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(post, client) for _ in range(3)]
    assert sorted(answer.result().status_code for answer in answers) == [201, 429, 429]
    assert job_count(engine) == (4, 1)


class Statements:
    def __init__(self) -> None:
        self.all: list[str] = []

    def add(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.all.append(statement)

    def of(self, request: Callable[[], Any], word: str = "") -> int:
        self.all.clear()
        assert request().is_success
        return sum(word in each for each in self.all)


@pytest.fixture
def statements() -> Iterator[Statements]:
    statements = Statements()
    sa.event.listen(sa.Engine, "after_cursor_execute", statements.add)
    yield statements
    sa.event.remove(sa.Engine, "after_cursor_execute", statements.add)


def test_sweep_is_read_by_two_queries_whatever_its_size(client: TestClient, statements: Statements) -> None:
    few, many = make(client), make(client, list=[{"seed": seed} for seed in range(100)])
    for path in (f"/sweeps/{few['id']}", f"/sweeps/{many['id']}", "/sweeps"):

        def read(path: str = path) -> Response:
            return client.get(path)

        assert statements.of(read, "FROM sweeps") == 1
        assert statements.of(read, "FROM jobs") == 1


def test_dataset_of_all_runs_is_resolved_once(client: TestClient, statements: Statements) -> None:
    dataset_id = upload(client)["id"]
    recipe = {"model": "tiny", "dataset": dataset_id}
    runs = [{"seed": seed} for seed in range(50)]
    statements.of(lambda: post(client, recipe=recipe, list=runs))
    read = [each for each in statements.all if "FROM datasets" in each]
    held = [each for each in read if "FOR KEY SHARE" in each]
    assert (len(read) - len(held), len(held)) == (1, len(runs))
    assert client.delete(f"/datasets/{dataset_id}").json()["error"]["code"] == "dataset_in_use"


@pytest.fixture
def trained(client: TestClient, sessions: Sessions) -> dict[str, Any]:
    """A sweep of four runs, of which three are running after one step with the losses 3, 1 and 2."""
    made = make(client)
    for run, loss in zip(made["jobs"], (3.0, 1.0, 2.0), strict=False):
        with sessions.begin() as session:
            job = claim(session)
        assert job is not None
        assert job.id == run["id"]
        record_events(sessions, run["id"], metric(1, time=1, loss=loss))
    return made


def test_best_run_has_the_least_loss(client: TestClient, trained: dict[str, Any]) -> None:
    found = get(client, trained["id"])
    assert [run["loss"] for run in found["jobs"]] == [3.0, 1.0, 2.0, None]
    assert [run["step"] for run in found["jobs"]] == [1, 1, 1, None]
    assert found["best"] == found["jobs"][1]["id"]
    assert client.get("/sweeps").json() == {"data": [found], "has_more": False}


def test_evaluation_loss_decides_before_the_loss(
    client: TestClient, trained: dict[str, Any], sessions: Sessions
) -> None:
    first, _, third, fourth = (run["id"] for run in trained["jobs"])
    for job_id, losses in ((first, (9.0, 1.5)), (third, (1.0, 2.5))):
        for step, eval_loss in enumerate(losses):
            event = EvaluationEvent(time=1, step=step, eval_loss=eval_loss, supervised_tokens=1)
            record_events(sessions, job_id, event)
    found = get(client, trained["id"])
    assert [run["eval_loss"] for run in found["jobs"]] == [1.5, None, 2.5, None]
    assert found["best"] == first
    client.post(f"/sweeps/{trained['id']}/cancel", params={"keep": fourth}).raise_for_status()
    assert get(client, trained["id"])["best"] == first  # it has not ended yet


NO_REWARDS = (None, None)


def evaluate(sessions: Sessions, job_id: str, eval_loss: float, accuracy: float | None, margin: float | None) -> None:
    event = EvaluationEvent(
        time=1, step=1, eval_loss=eval_loss, supervised_tokens=1, reward_accuracy=accuracy, reward_margin=margin
    )
    record_events(sessions, job_id, event)


@pytest.mark.parametrize(
    ("rewards", "best"),
    [
        (((0.6, 9.0), (0.9, 0.1), (0.8, 5.0)), 1),  # the accuracy decides
        (((0.9, 0.1), (0.9, 0.3), (0.9, 0.2)), 1),  # among equals the margin
        (((0.9, -0.1), (0.9, None), (0.9, 0.0)), 1),  # no margin is a margin of 0
        (((0.9, 0.5), (0.9, 0.5), (0.1, 0.5)), 0),  # among equals the first
        (((0.1, -2.0), NO_REWARDS, NO_REWARDS), 0),  # before any without rewards
    ],
)
def test_rewards_decide_before_the_evaluation_loss(
    client: TestClient,
    trained: dict[str, Any],
    sessions: Sessions,
    rewards: tuple[tuple[float | None, float | None], ...],
    best: int,
) -> None:
    runs = [run["id"] for run in trained["jobs"]][:3]
    for number, (job_id, scores) in enumerate(zip(runs, rewards, strict=True)):
        evaluate(sessions, job_id, 5.0 - number if number == best else 0.1, *scores)
    found = get(client, trained["id"])
    assert found["best"] == runs[best]
    shown = [(run["reward_accuracy"], run["reward_margin"]) for run in found["jobs"]]
    assert shown == [*rewards, NO_REWARDS]


def test_rewards_are_those_of_the_last_evaluation(
    client: TestClient, trained: dict[str, Any], sessions: Sessions
) -> None:
    first, second, *_ = (run["id"] for run in trained["jobs"])
    evaluate(sessions, first, 1.0, 0.9, 2.0)
    evaluate(sessions, first, 1.0, 0.6, 1.0)
    evaluate(sessions, second, 1.0, 0.7, 1.0)
    found = get(client, trained["id"])
    assert (found["jobs"][0]["reward_accuracy"], found["jobs"][0]["reward_margin"]) == (0.6, 1.0)
    assert found["best"] == second


def test_failed_run_is_not_the_best(client: TestClient, trained: dict[str, Any], engine: sa.Engine) -> None:
    _, best, third, _ = (run["id"] for run in trained["jobs"])
    with engine.begin() as connection:
        failed = "UPDATE jobs SET status = 'failed', lease_expires_at = NULL, failure = '{}', finished_at = now()"
        connection.execute(sa.text(f"{failed} WHERE id = :id"), {"id": best})
    assert get(client, trained["id"])["best"] == third


def test_cancel_stops_the_rest_and_keeps_what_it_is_to(
    client: TestClient, trained: dict[str, Any], engine: sa.Engine
) -> None:
    first, second, third, fourth = (run["id"] for run in trained["jobs"])
    with engine.begin() as connection:
        succeeded = "UPDATE jobs SET status = 'succeeded', lease_expires_at = NULL, finished_at = now() WHERE id = :id"
        connection.execute(sa.text(succeeded), {"id": first})
    for _ in range(2):
        answer = client.post(f"/sweeps/{trained['id']}/cancel", params={"keep": [second]})
        assert answer.json() == get(client, trained["id"])
        assert [run["status"] for run in answer.json()["jobs"]] == ["succeeded", "running", "running", "cancelled"]
        requested = {job["id"]: job["requested_action"] for job in client.get("/jobs").json()["data"]}
        assert requested == {first: None, second: None, third: "cancel", fourth: None}


def test_cancel_that_keeps_a_foreign_job_does_nothing(client: TestClient, trained: dict[str, Any]) -> None:
    other = post_job(client)["id"]
    answer = client.post(f"/sweeps/{trained['id']}/cancel", params={"keep": other})
    assert error_of(answer, 422, "invalid_parameter")["param"] == "keep"
    assert {run["status"] for run in get(client, trained["id"])["jobs"]} == {"running", "queued"}


def test_repeated_cancel_with_one_key_does_nothing_more(client: TestClient) -> None:
    made = make(client)
    path, headers = f"/sweeps/{made['id']}/cancel", {"idempotency-key": "one"}
    client.post(path, headers=headers).raise_for_status()
    retried = made["jobs"][0]["id"]
    client.post(f"/jobs/{retried}/retry").raise_for_status()
    assert client.post(path, headers=headers).json()["jobs"][0]["status"] == "queued"


def test_sweep_lasts_as_long_as_any_of_its_jobs(client: TestClient, engine: sa.Engine) -> None:
    made = make(client)
    client.post(f"/sweeps/{made['id']}/cancel").raise_for_status()
    first, *rest = (run["id"] for run in made["jobs"])
    client.delete(f"/jobs/{first}").raise_for_status()
    assert [run["id"] for run in get(client, made["id"])["jobs"]] == rest
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(lambda job_id: client.delete(f"/jobs/{job_id}").is_success, rest))
    assert client.get(f"/sweeps/{made['id']}").status_code == 404
    assert job_count(engine) == (0, 0)


def test_sweeps_are_paged_newest_first(client: TestClient) -> None:
    ids = [make(client, list=[{"seed": seed}])["id"] for seed in range(3)]
    page = client.get("/sweeps?limit=2").json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    page = client.get(f"/sweeps?limit=2&after={ids[1]}").json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([ids[0]], False)


def test_owner_sees_no_sweep_of_another(locked: TestClient) -> None:
    anna, bob = (bearer(make_key(locked, owner=owner)["secret"]) for owner in ("anna", "bob"))
    made = make(locked, anna)
    assert locked.get("/sweeps", headers=bob).json()["data"] == []
    path = f"/sweeps/{made['id']}"
    for answer in (locked.get(path, headers=bob), locked.post(f"{path}/cancel", headers=bob)):
        assert answer.status_code == 404
    own = make(locked, bob)
    answer = locked.post(f"/sweeps/{own['id']}/cancel", params={"keep": made["jobs"][0]["id"]}, headers=bob)
    assert error_of(answer, 422, "invalid_parameter")["param"] == "keep"
    assert {run["status"] for run in locked.get(path, headers=anna).json()["jobs"]} == {"queued"}
