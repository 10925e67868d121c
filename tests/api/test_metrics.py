"""A job's curves over HTTP."""

import csv

from fastapi.testclient import TestClient

from store.jobs import curves
from store.session import Sessions
from tests.support.api import error_of
from tests.support.events import metric
from tests.support.jobs import begin, create_job, record_events, register


def trained(sessions: Sessions, steps: int) -> str:
    job_id = create_job(sessions)
    with sessions.begin() as session:
        register(session)
        begin(session)
    record_events(sessions, job_id, *(metric(step, step, loss=1 / step) for step in range(1, steps + 1)))
    return job_id


def test_columns_are_chosen_by_name(client: TestClient, sessions: Sessions) -> None:
    job_id = trained(sessions, 30)
    found = client.get(f"/jobs/{job_id}/metrics?columns=loss,grad_norm&points=6&from_step=11&to_step=20").json()
    assert found["columns"].keys() == {"step", "time", "epoch", "tokens", "loss", "grad_norm"}
    assert (found["columns"]["step"][0], found["columns"]["step"][-1]) == (11, 20)
    assert (found["total"], found["thinned"]) == (10, True)


def test_unknown_column_is_named(client: TestClient, sessions: Sessions) -> None:
    job_id = create_job(sessions)
    error = error_of(client.get(f"/jobs/{job_id}/metrics?columns=loss,lose"), 422, "invalid_parameter")
    assert error["param"] == "columns"
    assert "lose" in error["message"]


def test_table_has_every_step_of_a_running_job(client: TestClient, sessions: Sessions) -> None:
    job_id = trained(sessions, 50)
    answer = client.get(f"/jobs/{job_id}/metrics.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job_id}.csv"'
    head, *rows = csv.reader(answer.text.splitlines())
    assert head == list(curves.COLUMNS)
    assert [int(row[head.index("step")]) for row in rows] == list(range(1, 51))
    assert [int(row[head.index("tokens")]) for row in rows] == list(range(100, 5001, 100))
    assert float(rows[2][head.index("loss")]) == 1 / 3


def test_table_of_no_job_is_not_found(client: TestClient) -> None:
    error_of(client.get(f"/jobs/job_{'0' * 24}/metrics.csv"), 404, "not_found")
