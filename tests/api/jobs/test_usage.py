"""What a job has taken, over HTTP."""

from fastapi.testclient import TestClient

from store.session import Sessions
from tests.support.api import error_of
from tests.support.events import metric
from tests.support.fake_trainer import started
from tests.support.jobs import begin, create_job, record_events, register


def test_new_job_has_taken_nothing(client: TestClient, sessions: Sessions) -> None:
    usage = client.get(f"/jobs/{create_job(sessions)}/usage").json()
    assert (usage["device"], usage["peak_memory_bytes"], usage["run_bytes"]) == (None, None, None)
    assert (usage["steps"], usage["tokens"], usage["training_seconds"], usage["artifact_bytes"]) == (0, 0, 0, 0)


def test_usage_adds_up_the_steps(client: TestClient, sessions: Sessions) -> None:
    job_id = create_job(sessions)
    with sessions.begin() as session:
        register(session)
        begin(session)
    steps = [metric(step, step, loss=1) for step in (1, 2, 3)]
    larger = steps[1].model_copy(update={"memory_bytes": 2**34, "tokens_per_second": 0.0})
    record_events(sessions, job_id, started(3, 0), steps[0], larger, steps[2])
    usage = client.get(f"/jobs/{job_id}/usage").json()
    assert (usage["steps"], usage["peak_memory_bytes"]) == (3, 2**34)
    assert usage["tokens"] == sum(step.tokens for step in steps)
    assert usage["training_seconds"] == sum(step.tokens / step.tokens_per_second for step in (steps[0], steps[2]))
    assert (usage["device"], usage["devices"]) == ("none", 1)


def test_usage_of_no_job_is_not_found(client: TestClient) -> None:
    error_of(client.get(f"/jobs/job_{'0' * 24}/usage"), 404, "not_found")
