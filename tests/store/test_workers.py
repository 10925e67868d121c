import sqlalchemy as sa

from contract.machine import Gpu, Machine
from store import workers
from store.session import Sessions

CPU = Machine(gpus=[], cores=2, cpu_bf16=True)
T4 = Machine(
    gpus=[Gpu(uuid="GPU-1", name="Tesla T4", memory_bytes=2**34, compute_capability=(7, 5))], cores=8, cpu_bf16=False
)


def beat(sessions: Sessions, name: str, machine: Machine) -> None:
    with sessions.begin() as session:
        workers.beat(session, name, machine)


def machines(sessions: Sessions) -> list[Machine]:
    with sessions.begin() as session:
        return workers.machines(session)


def names(engine: sa.Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.text("SELECT name FROM workers ORDER BY name")))


def test_a_worker_has_the_machine_that_it_last_told_of(sessions: Sessions) -> None:
    beat(sessions, "a", CPU)
    beat(sessions, "b", CPU)
    beat(sessions, "a", T4)
    assert machines(sessions) == [T4, CPU]


def test_a_worker_that_is_not_heard_of_for_a_minute_does_not_count_and_is_forgotten(
    sessions: Sessions, engine: sa.Engine
) -> None:
    beat(sessions, "lost", T4)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE workers SET seen_at = now() - interval '61 seconds'"))
    assert machines(sessions) == []
    beat(sessions, "here", CPU)
    assert names(engine) == ["here"]


def test_a_worker_that_comes_back_just_now_blocks_no_other(sessions: Sessions, engine: sa.Engine) -> None:
    beat(sessions, "a", CPU)
    beat(sessions, "b", T4)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE workers SET seen_at = now() - interval '61 seconds'"))
    with engine.begin() as other:
        other.execute(sa.text("UPDATE workers SET seen_at = now() WHERE name = 'b'"))
        with sessions.begin() as session:
            session.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
            workers.beat(session, "a", CPU)
    assert machines(sessions) == [CPU, T4]
