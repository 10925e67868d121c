"""What the workers' machines have not is refused when a job is posted."""

from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from contract.machine import Gpu, Machine
from store.scheduling import workers
from store.session import Sessions
from tests.support.api import error_of, submit

OLD_CPU = Machine(gpus=[], cores=4, cpu_bf16=False)
T4 = Machine(
    gpus=[Gpu(uuid="GPU-1", name="Tesla T4", memory_bytes=2**34, compute_capability=(7, 5))], cores=8, cpu_bf16=False
)


def register(sessions: Sessions, name: str, machine: Machine) -> None:
    with sessions.begin() as session:
        workers.register(session, name, "first", "localhost", machine)


@pytest.mark.parametrize(
    ("recipe", "code", "param"),
    [
        ({"precision": "bf16"}, "precision_unavailable", "precision"),
        ({"resources": {"nodes": 3}}, "devices_unavailable", "resources.nodes"),
    ],
)
def test_recipe_beyond_all_machines_is_refused(
    client: TestClient, sessions: Sessions, recipe: dict[str, Any], code: str, param: str
) -> None:
    register(sessions, "one", T4)
    register(sessions, "two", OLD_CPU)
    answer = submit(client, **recipe)
    assert error_of(answer, 422, code)["param"] == param


def test_machine_that_has_gone_refuses_nothing(client: TestClient, sessions: Sessions, engine: sa.Engine) -> None:
    register(sessions, "one", OLD_CPU)
    assert submit(client, precision="bf16").status_code == 422
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE workers SET seen_at = now() - interval '61 seconds'"))
    assert submit(client, precision="bf16").status_code == 201


def test_unwise_recipe_is_warned_in_events(client: TestClient, sessions: Sessions, engine: sa.Engine) -> None:
    register(sessions, "one", OLD_CPU)
    job = submit(client, precision="fp16").json()
    client.post(f"/jobs/{job['id']}/cancel")
    reported = client.get(f"/jobs/{job['id']}/events").text
    assert "event: log" in reported
    assert "20 to 30 times slower" in reported
