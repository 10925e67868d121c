"""The workers, and what runs on each of their devices."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from contract.machine import Disk, ExternalProcess
from contract.recipe import Recipe
from store.jobs import jobs
from store.scheduling import inference, workers
from store.session import Sessions
from tests.support.jobs import begin, register
from tests.support.machines import GPUS


def listed(client: TestClient) -> list[dict[str, Any]]:
    return client.get("/workers").json()["data"]


def test_service_without_workers_lists_none(client: TestClient) -> None:
    assert listed(client) == []


def test_worker_is_listed_with_what_its_machine_has(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        workers.register(session, "gpu-a", "first", "10.0.0.1", GPUS)
    (worker,) = listed(client)
    assert (worker["name"], worker["address"], worker["status"]) == ("gpu-a", "10.0.0.1", "ready")
    assert worker["machine"] == {"cores": 8, "cpu_bf16": True}
    assert abs(datetime.fromisoformat(worker["seen_at"]) - datetime.now(UTC)) < timedelta(seconds=30)
    free: dict[str, Any] = {"status": "free", "jobs": [], "jobs_of_other_owners": 0, "reason": None}
    same = {"name": "NVIDIA A100", "memory_bytes": 80 * 2**30, **free}
    assert worker["devices"] == [{"number": 0, "uuid": "GPU-1", **same}, {"number": 1, "uuid": "GPU-2", **same}]


def test_disk_is_listed_once_it_was_measured(client: TestClient, sessions: Sessions) -> None:
    disk = Disk(free_bytes=5, total_bytes=100, reserve_bytes=10, low=True)
    with sessions.begin() as session:
        register(session, "a")
    assert listed(client)[0]["disk"] is None
    with sessions.begin() as session:
        workers.record_disk(session, "a", "another", disk)  # that worker has been replaced
    assert listed(client)[0]["disk"] is None
    with sessions.begin() as session:
        workers.record_disk(session, "a", "first", disk)
    assert listed(client)[0]["disk"] == disk.model_dump()


def test_cpu_slot_is_a_device_with_its_jobs(client: TestClient, sessions: Sessions) -> None:
    shared = Recipe.model_validate({"model": "m", "dataset": "d", "resources": {"allow_sharing": True}})
    with sessions.begin() as session:
        register(session, "a")
        ids = {jobs.create(session, shared).id for _ in range(2)}
        begin(session)
    (device,) = listed(client)[0]["devices"]
    assert set(device.pop("jobs")) == ids
    slot = {"number": 0, "name": "CPU slot", "uuid": None, "memory_bytes": None}
    assert device == {**slot, "status": "leased", "jobs_of_other_owners": 0, "reason": None}


@pytest.mark.parametrize(
    ("external_processes", "why"),
    [
        ([("blender", 7, 2**33)], "It is used by blender (pid 7, 8.0 GiB), which is not a job's."),
        ([("a", 7, None), ("b", None, 2**30)], "It is used by a (pid 7), b (1.0 GiB), which are not a job's."),
        ([("c", None, 2**30)], "It is used by c (1.0 GiB), which is not a job's."),
        ([("the driver does not answer: GPU is lost", None, None)], "The driver does not answer: GPU is lost."),
        ([("a", 7, None)] * 5, "It is used by a (pid 7), a (pid 7), a (pid 7) and 2 more, which are not a job's."),
    ],
)
def test_device_that_is_held_says_by_whom(
    client: TestClient, sessions: Sessions, external_processes: list[tuple[str, int | None, int | None]], why: str
) -> None:
    held = [ExternalProcess(name=name, pid=pid, memory_bytes=memory) for name, pid, memory in external_processes]
    with sessions.begin() as session:
        workers.register(session, "gpu-a", "first", "localhost", GPUS)
        workers.heartbeat(session, "gpu-a", "first", {1: held}, draining=False)
    free, taken = listed(client)[0]["devices"]
    assert (free["status"], free["reason"]) == ("free", None)
    status = "unavailable" if "driver" in why else "busy"
    assert (taken["status"], taken["reason"]) == (status, why)


def test_draining_or_silent_worker_is_shown_so(client: TestClient, sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        for name in "abc":
            register(session, name)
        workers.heartbeat(session, "b", "first", {}, draining=True)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE workers SET seen_at = now() - interval '11 s' WHERE name = 'c'"))
    assert [(worker["name"], worker["status"]) for worker in listed(client)] == [
        ("a", "ready"),
        ("b", "draining"),
        ("c", "lost"),
    ]


def test_device_of_an_inference_server_names_its_model(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        register(session)
        inference.want(session, "/data/models/tiny")
        inference.place(session)
    (worker,) = listed(client)
    (device,) = worker["devices"]
    assert (device["status"], device["jobs"], device["reason"]) == ("leased", [], "It answers with tiny.")
