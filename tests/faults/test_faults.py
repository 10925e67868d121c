"""Whatever is killed, cut or stopped: the job ends as it should, each of its steps is there once, and nothing is left:
no process, and no device that is leased to nobody."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.processes import parent_of
from tests.faults.victims import command_has, guard, launcher, pool_process, ranks
from tests.support.fake_trainer import losses
from tests.support.servers import Servers
from tests.support.service import Service, busy_devices, parse_events
from tests.support.waiting import until

pytestmark = pytest.mark.slow

STEPS = 30
WORK = f"steps={STEPS} every=3 sleep=0.1 ranks=2"
WORKER_IS_KILLED = 60
"""Seconds after which a machine that shuts down kills a worker that is still trying to write."""


@pytest.fixture(autouse=True)
def both_workers(live: Service) -> Iterator[None]:
    """Each test begins with both, and nothing that runs. What a test has not stopped itself does not end, and what it
    has stopped leaves nothing."""
    for name in sorted(live.stopped):
        live.start_worker(name)
    until(lambda: [worker["status"] for worker in workers(live)] == ["ready", "ready"])
    yield
    until(lambda: not busy_devices(live), seconds=60)
    assert live.ended() <= live.stopped
    assert live.api.poll() is None
    until(lambda: not live.strangers())


def workers(live: Service) -> list[dict[str, Any]]:
    answer = live.client.get("/workers").json()
    return answer["data"]


def started(live: Service, name: str = WORK, step: int = 5) -> str:
    job_id: str = live.submit(name=name)["id"]
    live.wait_for_step(job_id, step)
    return job_id


def check_whole(live: Service, job_id: str, seconds: float = 60) -> None:
    job = live.wait(job_id, seconds=seconds)
    assert job["status"] == "succeeded", job
    columns = live.metrics(job_id)
    assert columns["step"] == list(range(1, STEPS + 1))
    assert columns["loss"] == losses(STEPS)
    until(lambda: not live.processes(job_id))
    until(lambda: not busy_devices(live))
    statuses = [data["status"] for data in live.reported(job_id, "status")]
    assert statuses.count("succeeded") == 1
    assert statuses[-1] == "succeeded"


def resumed(live: Service, job_id: str) -> list[int]:
    return [data["resumed_step"] for data in live.reported(job_id, "started")]


def check_went_on(live: Service, job_id: str, step: int = 3) -> None:
    """From a state of that step or a later one. One that begins anew comes to the same losses: these do not tell."""
    first, *later = resumed(live, job_id)
    assert first == 0
    assert later
    assert min(later) >= step


@pytest.mark.parametrize(
    "victim",
    [
        lambda live, job_id: ranks(live, job_id)[0],
        pytest.param(lambda live, job_id: ranks(live, job_id)[1], marks=pytest.mark.exhaustive),
        pytest.param(launcher, marks=pytest.mark.exhaustive),
        pytest.param(guard, marks=pytest.mark.exhaustive),
        pytest.param(pool_process, marks=pytest.mark.exhaustive),
    ],
    ids=["rank 0", "rank 1", "the launcher", "the guard", "the pool process"],
)
def test_process_of_a_job_is_killed(live: Service, victim: Callable[[Service, str], int]) -> None:
    job_id = started(live)
    os.kill(victim(live, job_id), signal.SIGKILL)
    check_whole(live, job_id)
    check_went_on(live, job_id)


@pytest.mark.exhaustive
def test_guard_and_launcher_are_killed_at_once(live: Service) -> None:
    job_id = started(live, f"{WORK} orphan")
    for pid in (guard(live, job_id), launcher(live, job_id)):
        os.kill(pid, signal.SIGKILL)
    check_whole(live, job_id)
    check_went_on(live, job_id)


def test_job_of_killed_worker_resumes_within_fifteen_seconds(live: Service) -> None:
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
    check_went_on(live, job_id)


@pytest.mark.exhaustive
def test_worker_is_killed_and_started_again(live: Service) -> None:
    job_id = started(live)
    name = live.job(job_id)["worker"]
    live.kill_worker(name)
    live.start_worker(name)
    check_whole(live, job_id)
    check_went_on(live, job_id)


@pytest.mark.exhaustive
def test_all_processes_of_a_worker_are_killed(live: Service) -> None:
    """Its process group, and the guard, which has a session of its own."""
    job_id = started(live, f"{WORK} orphan")
    name = live.job(job_id)["worker"]
    main = live.workers[name].pid
    family = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if is_below(pid, main)]
    for pid in [*family, main]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    spared = {*ranks(live, job_id), *command_has(live, job_id, b"sleep")}
    for pid in {main, *family} - spared:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in spared:
        os.kill(pid, signal.SIGCONT)
    live.kill_worker(name)
    live.start_worker(name)
    check_whole(live, job_id)
    check_went_on(live, job_id)


def is_below(pid: int, ancestor: int) -> bool:
    parent = parent_of(pid)
    while parent is not None and parent > 1:
        if parent == ancestor:
            return True
        parent = parent_of(parent)
    return False


@pytest.mark.exhaustive
def test_worker_is_told_to_stop(live: Service) -> None:
    job_id = started(live)
    name = live.job(job_id)["worker"]
    live.stop_worker(name)
    check_whole(live, job_id)
    assert live.reported(job_id, "retry") == []
    check_went_on(live, job_id, step=5)


def writers(live: Service, job_id: str) -> set[int]:
    """The attempts that wrote the steps: the fake trainer gives their numbers as tokens."""
    return {after - before for before, after in pairwise([0, *live.metrics(job_id)["tokens"]])}


@pytest.mark.exhaustive
def test_revived_worker_writes_nothing(live: Service) -> None:
    """Though its trainer, which nobody could stop, has come to the end meanwhile."""
    job_id = started(live, f"steps={STEPS} sleep=0.6 rogue")
    name = live.job(job_id)["worker"]
    stopped = [live.workers[name].pid, pool_process(live, job_id)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    until(live.run_dir(job_id).adapter.exists)
    until(lambda: writers(live, job_id) == {2})
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    until(lambda: [device["worker"] for device in live.job(job_id)["devices"]] != [name])
    until(lambda: len(busy_devices(live)) == 1)
    live.wait_for_step(job_id, live.job(job_id)["progress"]["step"] + 1)
    job = live.job(job_id)
    assert (job["status"], job["attempt"]) == ("running", 2)
    artifacts = live.client.get(f"/jobs/{job_id}/artifacts").json()["data"]
    assert "adapter" not in {each["kind"] for each in artifacts}
    check_whole(live, job_id)
    assert writers(live, job_id) == {2}
    assert len(live.reported(job_id, "done")) == 1
    (retry,) = live.reported(job_id, "retry")
    assert retry["code"] == "worker_lost"


@pytest.mark.exhaustive
def test_unstoppable_trainer_is_fenced_from_saving(live: Service) -> None:
    job_id = started(live, "steps=1000 every=3 sleep=0.6 ranks=2")
    name = live.job(job_id)["worker"]
    stopped = [live.workers[name].pid, pool_process(live, job_id)]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    until(live.run_dir(job_id).superseded.exists)
    until(lambda: not set(ranks(live, job_id)).intersection(live.processes_of(job_id, 1)))
    assert not live.run_dir(job_id).adapter.exists()
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    live.ask("cancel?force=true", job_id)
    assert live.wait(job_id)["status"] == "cancelled"


@pytest.mark.exhaustive
def test_api_is_killed(live: Service) -> None:
    """And whoever watches takes the stream up where it broke off."""
    job_id = started(live)
    reported = ""
    with suppress(httpx.TransportError), live.client.stream("GET", f"/jobs/{job_id}/events") as stream:
        for text in stream.iter_text():
            reported += text
            if "metric" in reported and live.api.poll() is None:
                live.api.kill()
                live.api.wait()
    seen = parse_events(reported)
    live.start_api()
    check_whole(live, job_id)
    assert len(resumed(live, job_id)) == 1
    seen += live.events(job_id, last_event_id=seen[-1][1])
    assert [data["step"] for kind, _, data in seen if kind == "metric"] == list(range(1, STEPS + 1))
    assert [data["status"] for kind, _, data in seen if kind == "status"] == ["queued", "running", "succeeded"]


def test_emptied_and_restarted_broker_loses_no_job(live: Service, servers: Servers) -> None:
    running = [started(live), started(live)]
    queued = [live.submit(name=WORK)["id"]]
    with servers.client() as client:
        client.flushall()
    servers.stop_broker()
    queued.append(live.submit(name=WORK)["id"])
    servers.start_broker()
    for job_id in (*running, *queued):
        check_whole(live, job_id)
        assert len(resumed(live, job_id)) == 1


@pytest.mark.exhaustive
def test_all_connections_to_the_broker_are_cut(live: Service, servers: Servers) -> None:
    job_id = started(live)
    with servers.client() as client:
        client.execute_command("CLIENT", "KILL", "SKIPME", "yes")
    queued = [live.submit(name=WORK)["id"] for _ in range(2)]
    for each in (job_id, *queued):
        check_whole(live, each)
        assert len(resumed(live, each)) == 1


@pytest.mark.exhaustive
def test_database_away_for_thirty_seconds_loses_nothing(live: Service, servers: Servers) -> None:
    work = WORK.replace("sleep=0.1", "sleep=0.4")
    job_id = started(live, work)
    servers.stop_database()
    servers.start_database()
    # The first request meets dead connections and gets 503; then all are made anew.
    until(lambda: live.client.get("/jobs").status_code == 200)
    another = started(live, work, step=1)
    queued = live.submit(name=WORK)["id"]
    servers.stop_database()
    assert live.client.get(f"/jobs/{job_id}").status_code == 503
    time.sleep(30)
    servers.start_database()
    for each in (job_id, another, queued):
        check_whole(live, each)
        assert len(resumed(live, each)) == 1
        assert live.job(each)["attempt"] == 1


@pytest.mark.exhaustive
def test_trainer_killed_within_an_event_line_resumes(live: Service) -> None:
    job_id = live.submit(name=f"{WORK} half=17 once")["id"]
    check_whole(live, job_id)
    assert resumed(live, job_id) == [0, 15]
    lines = live.run_dir(job_id).events.read_text().splitlines()
    assert '"step":17' in lines[-1]
    assert not lines[-1].endswith("}")


@pytest.mark.exhaustive
@pytest.mark.parametrize("place", [0, pytest.param(1, marks=pytest.mark.exhaustive)], ids=["the head", "the other"])
def test_one_of_two_machines_is_stopped(live: Service, place: int) -> None:
    job_id = started_on_two(live)
    live.stop_worker(machines(live, job_id)[place])
    assert live.job(job_id)["status"] == "queued"
    assert not live.processes(job_id)
    both_are_there(live)
    check_whole(live, job_id)
    check_went_on(live, job_id, step=5)
    assert live.reported(job_id, "retry") == []


@pytest.mark.exhaustive
def test_head_worker_of_two_machines_is_killed(live: Service) -> None:
    job_id = started_on_two(live)
    live.kill_worker(machines(live, job_id)[0])
    both_are_there(live)
    check_whole(live, job_id)
    check_went_on(live, job_id)
    (retry,) = live.reported(job_id, "retry")
    assert retry["code"] == "worker_lost"


@pytest.mark.exhaustive
def test_job_on_two_machines_is_paused_and_resumed(live: Service) -> None:
    job_id = started_on_two(live)
    live.ask("pause", job_id)
    live.wait(job_id, "paused")
    assert not live.processes(job_id)
    assert not busy_devices(live)
    live.ask("resume", job_id)
    check_whole(live, job_id)
    check_went_on(live, job_id, step=5)


def started_on_two(live: Service) -> str:
    job_id: str = live.submit(name=WORK, resources={"nodes": 2})["id"]
    live.wait_for_step(job_id, 5)
    return job_id


def machines(live: Service, job_id: str) -> list[str]:
    """The head first."""
    head: str = live.job(job_id)["worker"]
    return sorted("ab", key=lambda name: name != head)


def both_are_there(live: Service) -> None:
    for name in sorted(live.stopped):
        live.start_worker(name)


@pytest.mark.exhaustive
def test_worker_whose_servers_stopped_first_ends_soon(live: Service) -> None:
    """As when a machine shuts down, which stops all of them at once."""
    assert live.servers is not None
    job_id = started(live)
    live.servers.stop_database()
    live.servers.stop_broker()
    began = time.monotonic()
    for name in ("a", "b"):
        live.workers[name].terminate()
    for name in ("a", "b"):
        live.stop_worker(name)
    assert time.monotonic() - began < WORKER_IS_KILLED, live.home
    until(lambda: not live.processes(job_id), seconds=5)  # and the trainer has saved
    live.servers.start_what_is_down()
    for name in ("a", "b"):
        live.start_worker(name)
    check_whole(live, job_id)
    assert resumed(live, job_id)[1] > 0


@pytest.mark.exhaustive
def test_torn_state_is_skipped_for_an_earlier_one(live: Service) -> None:
    job_id = live.submit(name=f"{WORK} torn kill=9 once")["id"]
    check_whole(live, job_id)
    assert resumed(live, job_id) == [0, STEPS - 3]
    (warning,) = live.reported(job_id, "log")
    assert f"attempt-1/step-{STEPS:06d} is damaged" in warning["message"]


@pytest.mark.exhaustive
def test_disk_is_full_once(live: Service) -> None:
    job_id = live.submit(name=f"{WORK} fail=disk_full once")["id"]
    check_whole(live, job_id)
    (retry,) = live.reported(job_id, "retry")
    assert (retry["code"], retry["wait_seconds"]) == ("disk_full", 2)


@pytest.mark.exhaustive
def test_finished_trainer_of_lost_worker_is_not_rerun(live: Service) -> None:
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
