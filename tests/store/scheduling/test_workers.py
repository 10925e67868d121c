import pytest
import sqlalchemy as sa

from contract.machine import ExternalProcess, Gpu, Machine
from store.errors import WorkerSuperseded
from store.scheduling import workers
from store.session import Sessions
from tests.support.jobs import cpu

CPU = cpu(slots=2)
T4 = Machine(
    gpus=[Gpu(uuid="GPU-1", name="Tesla T4", memory_bytes=2**34, compute_capability=(7, 5))], cores=8, cpu_bf16=False
)
TWO_T4 = T4.model_copy(update={"gpus": [*T4.gpus, T4.gpus[0].model_copy(update={"uuid": "GPU-2"})]})
FOREIGN = ExternalProcess(pid=7, name="blender", memory_bytes=2**33)


def register(sessions: Sessions, name: str, machine: Machine, instance_id: str = "first") -> None:
    with sessions.begin() as session:
        workers.register(session, name, instance_id, "localhost", machine)


def beat(sessions: Sessions, name: str, instance_id: str = "first") -> bool:
    with sessions.begin() as session:
        return workers.heartbeat(session, name, instance_id, {0: [FOREIGN]}, draining=False)


def machines(sessions: Sessions) -> list[Machine]:
    with sessions.begin() as session:
        return workers.list_machines(session)


def devices(sessions: Sessions) -> list[tuple[str, int]]:
    with sessions.begin() as session:
        return [(device.worker, device.number) for device in workers.list_devices(session)]


def pass_time(engine: sa.Engine, seconds: int) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE workers SET seen_at = now() - interval '{seconds} seconds'"))


def test_worker_has_its_latest_machine_and_devices(sessions: Sessions) -> None:
    register(sessions, "a", CPU)
    register(sessions, "b", CPU)
    register(sessions, "a", T4)
    assert machines(sessions) == [T4, CPU]
    assert devices(sessions) == [("a", 0), ("b", 0), ("b", 1)]


def test_beat_tells_who_else_uses_the_devices(sessions: Sessions) -> None:
    register(sessions, "a", T4)
    assert beat(sessions, "a")
    with sessions.begin() as session:
        (device,) = workers.list_devices(session)
    assert device.external_processes == [FOREIGN.model_dump(mode="json")]


def reasons(sessions: Sessions) -> set[str | None]:
    """Why no job may get a device; None for each that one may get."""
    with sessions.begin() as session:
        found = [device.external_processes for device in workers.list_devices(session)]
    return {each[0]["name"] if each else None for each in found}


def test_unusable_gpus_are_given_to_nobody(sessions: Sessions) -> None:
    register(sessions, "a", TWO_T4.model_copy(update={"unusable": "the driver is too old"}))
    assert beat(sessions, "a")
    assert reasons(sessions) == {"the driver is too old"}


def test_gpus_marked_unusable_stay_so_until_a_restart(sessions: Sessions) -> None:
    register(sessions, "a", TWO_T4)
    with sessions.begin() as session:
        workers.mark_unusable(session, "a", "lost")
    assert reasons(sessions) == {"lost"}
    assert beat(sessions, "a")
    assert reasons(sessions) == {"lost"}
    register(sessions, "a", TWO_T4, "second")
    assert beat(sessions, "a", "second")
    assert reasons(sessions) == {"blender", None}


def test_silent_worker_is_dropped_and_finally_forgotten(sessions: Sessions, engine: sa.Engine) -> None:
    register(sessions, "lost", T4)
    known = []
    for seconds in (11, 61, 3601):
        pass_time(engine, seconds)
        with sessions.begin() as session:
            assert workers.alive_names(session) == set()
        register(sessions, "here", CPU)
        assert beat(sessions, "here")
        with sessions.begin() as session:
            known.append(
                (len(workers.list_machines(session)), [worker.name for worker, _ in workers.list_workers(session)])
            )
    assert known == [(2, ["here", "lost"]), (1, ["here", "lost"]), (1, ["here"])]
    assert not beat(sessions, "lost")
    assert devices(sessions) == [("here", 0), ("here", 1)]


def test_returning_worker_blocks_no_other(sessions: Sessions, engine: sa.Engine) -> None:
    register(sessions, "a", CPU)
    register(sessions, "b", T4)
    pass_time(engine, 3601)
    with engine.begin() as other:
        other.execute(sa.text("UPDATE workers SET seen_at = now() WHERE name = 'b'"))
        with sessions.begin() as session:
            session.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
            workers.heartbeat(session, "a", "first", {}, draining=False)
    assert machines(sessions) == [CPU, T4]


def test_superseded_worker_is_told_so(sessions: Sessions) -> None:
    register(sessions, "a", CPU, "first")
    register(sessions, "a", CPU, "second")
    assert beat(sessions, "a", "second")
    with pytest.raises(WorkerSuperseded, match="another worker has begun as a; give each a name of its own"):
        beat(sessions, "a", "first")


def test_ended_worker_is_not_listed(sessions: Sessions) -> None:
    register(sessions, "a", CPU, "second")
    for instance_id, left in (("first", [CPU]), ("second", [])):
        with sessions.begin() as session:
            workers.unregister(session, "a", instance_id)
        assert machines(sessions) == left
