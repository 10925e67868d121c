"""Memory of the workers' machines over the last day."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.machine import Machine
from store.jobs import jobs
from store.models import MemoryReading
from store.scheduling import memory, workers
from store.session import Sessions
from tests.support.api import bearer, error_of, make_key
from tests.support.jobs import begin, cpu, make_recipe
from tests.support.machines import GPUS


def add_worker(sessions: Sessions, machine: Machine = GPUS) -> None:
    with sessions.begin() as session:
        workers.register(session, "gpu-a", "first", "localhost", machine)


def record(sessions: Sessions, used: Mapping[int, int], seconds_ago: int = 0) -> None:
    """As the worker does."""
    with sessions.begin() as session:
        memory.record(session, "gpu-a", used)
        earlier = sa.update(MemoryReading).where(MemoryReading.at == sa.func.now())
        session.execute(earlier.values(at=sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds_ago)))


def read(client: TestClient, query: str = "", **headers: str) -> dict[int | None, dict[str, Any]]:
    answer = client.get(f"/workers/gpu-a/memory{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    return {each["device"]: each for each in answer.json()["data"]}


def test_memory_is_listed_by_device_with_its_leases(client: TestClient, sessions: Sessions) -> None:
    add_worker(sessions, GPUS.model_copy(update={"memory_bytes": 100}))
    record(sessions, {0: 1, 1: 2, memory.MACHINE: 10}, seconds_ago=90)
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        (part,) = begin(session)
    record(sessions, {0: 3, 1: 2, memory.MACHINE: 20}, seconds_ago=60)
    record(sessions, {0: 4, 1: 2, memory.MACHINE: 30}, seconds_ago=30)
    found = read(client)
    assert {device: each["used_bytes"] for device, each in found.items()} == {
        None: [10, 20, 30],
        0: [1, 3, 4],
        1: [2] * 3,
    }
    assert [found[device]["total_bytes"] for device in (None, 0)] == [100, 80 * 2**30]
    (held,) = part.devices
    (lease,) = found[held]["leases"]
    assert (lease["jobs"], lease["jobs_of_other_owners"]) == ([job_id], 0)
    assert [lease["start"], lease["end"]] == found[held]["time"][1:]
    assert found[None]["leases"] == [lease]
    assert found[1 - held]["leases"] == []
    later = read(client, f"?after={found[0]['time'][1]}")
    assert later[0]["used_bytes"] == [4]


def test_memory_names_no_job_of_another_owner(locked: TestClient, sessions: Sessions) -> None:
    add_worker(sessions, cpu(1))
    anna, bob = (bearer(make_key(locked, owner=owner)["secret"]) for owner in ("anna", "bob"))
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe(), "anna").id
        begin(session)
    record(sessions, {memory.MACHINE: 1})
    assert read(locked, **anna)[None]["leases"][0]["jobs"] == [job_id]
    (lease,) = read(locked, **bob)[None]["leases"]
    assert (lease["jobs"], lease["jobs_of_other_owners"]) == ([], 1)


def test_memory_of_an_unknown_worker_is_not_found(client: TestClient) -> None:
    error_of(client.get("/workers/none/memory"), 404, "not_found")


def test_readings_older_than_a_day_are_deleted(client: TestClient, sessions: Sessions) -> None:
    add_worker(sessions)
    day = int(memory.KEPT.total_seconds())
    for age in (2 * day, day + 1, day - 60):
        record(sessions, {0: age}, seconds_ago=age)
    record(sessions, {0: 1})
    assert read(client)[0]["used_bytes"] == [day - 60, 1]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=60), points=st.integers(2, 40))
def test_thinned_memory_keeps_peaks_and_ends(
    client: TestClient, sessions: Sessions, values: list[int], points: int
) -> None:
    with sessions.begin() as session:
        session.execute(sa.delete(MemoryReading))
        workers.register(session, "gpu-a", "first", "localhost", GPUS)
        rows = [
            {
                "worker": "gpu-a",
                "device": 0,
                "used_bytes": value,
                "jobs": [],
                "at": sa.func.to_timestamp(1000 + 30 * index),
            }
            for index, value in enumerate(values)
        ]
        for row in rows:
            session.execute(sa.insert(MemoryReading).values(row))
    whole, thinned = read(client)[0], read(client, f"?points={points}")[0]
    assert whole["used_bytes"] == values
    pairs = list(zip(thinned["time"], thinned["used_bytes"], strict=True))
    assert set(pairs) <= set(zip(whole["time"], values, strict=True))
    assert pairs == sorted(pairs)
    assert len(pairs) <= points + 2
    assert (max(thinned["used_bytes"]), min(thinned["used_bytes"])) == (max(values), min(values))
    assert (thinned["time"][0], thinned["time"][-1]) == (whole["time"][0], whole["time"][-1])
