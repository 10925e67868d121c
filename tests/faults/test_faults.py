"""Whatever is killed, cut or stopped: the job ends as it should, each of its steps is there once, and nothing is left:
no process, and no device that is leased to nobody."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.servers import Servers
from tests.service import Service, busy, told_of, until

STEPS = 30
WORK = f"steps={STEPS} every=3 sleep=0.1 ranks=2"


@pytest.fixture(autouse=True)
def both_workers(live: Service) -> Iterator[None]:
    """Each test begins with both, and nothing that runs."""
    for name, process in live.workers.items():
        if process.poll() is not None:
            live.start_worker(name)
    until(lambda: [worker["status"] for worker in workers(live)] == ["ready", "ready"])
    yield
    until(lambda: not busy(live), seconds=60)


def workers(live: Service) -> list[dict[str, Any]]:
    answer = live.client.get("/workers").json()
    return answer["data"]  # type: ignore[no-any-return]


def started(live: Service, name: str = WORK, step: int = 5) -> str:
    job_id: str = live.submit(name=name)["id"]
    live.wait_for_step(job_id, step)
    return job_id


def check_whole(live: Service, job_id: str, seconds: float = 60) -> None:
    job = live.wait(job_id, seconds=seconds)
    assert job["status"] == "succeeded", job
    columns = live.metrics(job_id)
    assert columns["step"] == list(range(1, STEPS + 1))
    assert columns["loss"] == [3.0 / step for step in range(1, STEPS + 1)]
    until(lambda: not live.processes(job_id))
    until(lambda: not busy(live))
    statuses = [data["status"] for data in live.told(job_id, "status")]
    assert statuses.count("succeeded") == 1
    assert statuses[-1] == "succeeded"


def resumed(live: Service, job_id: str) -> list[int]:
    return [data["resumed_step"] for data in live.told(job_id, "started")]


def command_has(live: Service, job_id: str, word: bytes) -> list[int]:
    return [pid for pid in live.processes(job_id) if word in told_of(pid, "cmdline")]


def ranks(live: Service, job_id: str) -> list[int]:
    return command_has(live, job_id, b"--rank")


def guard(live: Service, job_id: str) -> int:
    (pid,) = command_has(live, job_id, b"guard.py")
    return pid


def launcher(live: Service, job_id: str) -> int:
    (pid,) = set(command_has(live, job_id, b"fake_trainer.py")) - set(ranks(live, job_id)) - {guard(live, job_id)}
    return pid


def parent(pid: int) -> int:
    return int(told_of(pid, "stat").rpartition(b")")[2].split()[1])


def pool_process(live: Service, job_id: str) -> int:
    return parent(guard(live, job_id))


@pytest.mark.parametrize(
    "victim",
    [
        lambda live, job_id: ranks(live, job_id)[0],
        lambda live, job_id: ranks(live, job_id)[1],
        launcher,
        guard,
        pool_process,
    ],
    ids=["rank 0", "rank 1", "the launcher", "the guard", "the pool process"],
)
def test_a_process_of_a_job_is_killed(live: Service, victim: Callable[[Service, str], int]) -> None:
    job_id = started(live)
    os.kill(victim(live, job_id), signal.SIGKILL)
    check_whole(live, job_id)
    first, second = resumed(live, job_id)
    assert first == 0
    assert second >= 3


def test_guard_and_launcher_are_killed_at_once(live: Service) -> None:
    job_id = started(live)
    for pid in (guard(live, job_id), launcher(live, job_id)):
        os.kill(pid, signal.SIGKILL)
    check_whole(live, job_id)


def test_a_worker_is_killed_and_another_goes_on_within_fifteen_seconds(live: Service) -> None:
    job_id = started(live)
    name = live.job(job_id)["worker"]
    live.kill_worker(name)
    killed = time.monotonic()
    until(lambda: live.job(job_id)["attempt"] == 2)
    assert live.job(job_id)["worker"] != name
    assert time.monotonic() - killed < 15
    live.wait(job_id)
    live.start_worker(name)
    check_whole(live, job_id)


def test_a_worker_is_killed_and_started_again(live: Service) -> None:
    job_id = started(live)
    name = live.job(job_id)["worker"]
    live.kill_worker(name)
    live.start_worker(name)
    check_whole(live, job_id)


def test_all_processes_of_a_worker_are_killed_at_once(live: Service) -> None:
    """Its process group, and the guard, which has a session of its own."""
    job_id = started(live)
    name = live.job(job_id)["worker"]
    main = live.workers[name].pid
    family = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if is_below(pid, main)]
    for pid in [*family, main]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    for pid in [main, *family]:
        if b"--rank" not in told_of(pid, "cmdline"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for pid in ranks(live, job_id):
        os.kill(pid, signal.SIGCONT)
    live.workers[name].wait()
    live.start_worker(name)
    check_whole(live, job_id)


def is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        try:
            pid = parent(pid)
        except IndexError:
            return False
        if pid == ancestor:
            return True
    return False


def test_a_worker_is_told_to_stop(live: Service) -> None:
    job_id = started(live)
    name = live.job(job_id)["worker"]
    live.stop_worker(name)
    check_whole(live, job_id)
    assert live.told(job_id, "retry") == []
    assert resumed(live, job_id)[1] >= 5


def test_a_worker_that_was_thought_dead_comes_back_and_writes_nothing(live: Service, servers: Servers) -> None:
    job_id = started(live, f"{WORK.replace('sleep=0.1', 'sleep=0.6')}")
    name = live.job(job_id)["worker"]
    stopped = [live.workers[name].pid, pool_process(live, job_id)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: live.job(job_id)["attempt"] == 2)
    live.wait_for_step(job_id, resumed_now(live, job_id) + 1)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    until(lambda: not command_has(live, job_id, b"attempt-1"))
    assert live.job(job_id)["attempt"] == 2
    check_whole(live, job_id)
    engine = sa.create_engine(servers.database.url)
    with engine.connect() as connection:
        statement = "SELECT DISTINCT path FROM artifacts WHERE job_id = :id AND kind = 'adapter'"
        paths = list(connection.scalars(sa.text(statement), {"id": job_id}))
    engine.dispose()
    assert all("attempt-2/" in path for path in paths)


def resumed_now(live: Service, job_id: str) -> int:
    """The step from which the second attempt goes on, once it has told of it."""
    log = live.run_dir(job_id, 2).events
    until(log.exists)
    return 3


def test_the_api_is_killed(live: Service) -> None:
    job_id = started(live)
    live.api.kill()
    live.api.wait()
    live.start_api()
    check_whole(live, job_id)
    assert len(resumed(live, job_id)) == 1


def test_the_broker_is_emptied_with_a_job_queued_and_two_running(live: Service, servers: Servers) -> None:
    running = [started(live), started(live)]
    queued = live.submit(name=WORK)["id"]
    with servers.client() as client:
        client.flushall()
    for job_id in (*running, queued):
        check_whole(live, job_id)
        assert len(resumed(live, job_id)) == 1


def test_the_broker_is_restarted_with_a_job_queued_and_two_running(live: Service, servers: Servers) -> None:
    running = [started(live), started(live)]
    servers.stop_broker()
    queued = live.submit(name=WORK)["id"]
    servers.start_broker()
    for job_id in (*running, queued):
        check_whole(live, job_id)
        assert len(resumed(live, job_id)) == 1


def test_all_connections_to_the_broker_are_cut(live: Service, servers: Servers) -> None:
    job_id = started(live)
    with servers.client() as client:
        client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
    queued = [live.submit(name=WORK)["id"] for _ in range(2)]
    for each in (job_id, *queued):
        check_whole(live, each)
        assert len(resumed(live, each)) == 1


@pytest.mark.parametrize("seconds", [0, 30])
def test_the_database_is_away(live: Service, servers: Servers, seconds: int) -> None:
    job_id = started(live, WORK.replace("sleep=0.1", "sleep=0.4"))
    queued = live.submit(name=WORK)["id"]
    servers.stop_database()
    if seconds:
        assert live.client.get(f"/jobs/{job_id}").status_code == 503
    time.sleep(seconds)
    servers.start_database()
    for each in (job_id, queued):
        check_whole(live, each)
        assert len(resumed(live, each)) == 1
    assert live.job(job_id)["attempt"] == 1


def test_a_trainer_is_killed_in_the_middle_of_an_events_line(live: Service) -> None:
    job_id = live.submit(name=f"{WORK} half kill=9 once")["id"]
    check_whole(live, job_id)


def test_a_state_that_was_torn_is_passed_over_for_the_one_before(live: Service) -> None:
    job_id = live.submit(name=f"{WORK} torn kill=9 once")["id"]
    check_whole(live, job_id)
    assert resumed(live, job_id) == [0, STEPS - 3]
    (warning,) = live.told(job_id, "log")
    assert f"attempt-1/step-{STEPS:06d} is damaged" in warning["message"]


def test_a_trainer_that_had_finished_when_its_worker_was_lost_is_not_run_again(live: Service) -> None:
    job_id = started(live)
    name = live.job(job_id)["worker"]
    stopped = [live.workers[name].pid, pool_process(live, job_id)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    done = live.run_dir(job_id).adapter
    until(done.exists)
    until(lambda: not ranks(live, job_id))
    live.kill_worker(name)
    live.start_worker(name)
    check_whole(live, job_id)
    assert not Path(live.run_dir(job_id, 2).events).exists()
