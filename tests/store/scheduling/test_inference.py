"""An inference server gets what no job uses, and gives it back."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from contract.failure import Failure, FailureCode
from contract.machine import Gpu
from store.models import InferenceServer, Worker
from store.scheduling import inference, scheduler, workers
from store.session import Sessions
from tests.support.jobs import cpu, create_job


def join(
    sessions: Sessions, name: str = "worker", slots: int = 1, kind: str = "preemptible", shares: bool = True
) -> None:
    with sessions.begin() as session:
        workers.register(session, name, "first", "localhost", cpu(slots), kind, shares)


def want(sessions: Sessions, base: str = "tiny", background: bool = False) -> InferenceServer:
    """The row, after a pass."""
    with sessions.begin() as session:
        server_id = inference.want(session, base, background).id
    with sessions.begin() as session:
        inference.place(session)
    return get(sessions, server_id)


def get(sessions: Sessions, server_id: str) -> InferenceServer:
    with sessions.begin() as session:
        server = session.get_one(InferenceServer, server_id)
        session.expunge(server)
        return server


def ready(sessions: Sessions, base: str = "tiny", background: bool = False) -> InferenceServer:
    server = want(sessions, base, background)
    with sessions.begin() as session:
        inference.set_ready(session, server.id, "127.0.0.1:1")
    return get(sessions, server.id)


def schedule(sessions: Sessions) -> list[str]:
    with sessions.begin() as session:
        return [placed.job_id for placed in scheduler.schedule(session)]


def age(session: Session, column: str, seconds: int) -> None:
    earlier = getattr(InferenceServer, column) - sa.text(f"interval '{seconds} seconds'")
    session.execute(sa.update(InferenceServer).values({column: earlier}))


def test_server_gets_a_free_device_once(sessions: Sessions) -> None:
    assert want(sessions).state == "wanted"
    join(sessions, slots=2)
    first = want(sessions)
    assert (first.state, first.worker, first.number) == ("starting", "worker", 0)
    assert want(sessions).id == first.id
    other = want(sessions, "another")
    assert (other.state, other.number) == ("starting", 1)
    assert want(sessions, "third").state == "wanted"


def test_waiting_jobs_come_before_a_wanted_server(sessions: Sessions) -> None:
    join(sessions)
    job = create_job(sessions)
    assert schedule(sessions) == [job]
    assert want(sessions).state == "wanted"


def test_job_has_a_server_end_and_then_starts(sessions: Sessions) -> None:
    join(sessions)
    server = ready(sessions)
    job = create_job(sessions)
    assert schedule(sessions) == []
    assert get(sessions, server.id).state == "stopping"
    again = want(sessions)
    assert (again.state, again.id != server.id) == ("wanted", True)
    assert schedule(sessions) == []  # until no process is left
    with sessions.begin() as session:
        inference.end(session, server.id, None)
    assert schedule(sessions) == [job]


def test_job_of_two_devices_gets_both(sessions: Sessions) -> None:
    join(sessions, slots=2)
    server = ready(sessions)
    job = create_job(sessions, resources={"gpus": 2})
    assert schedule(sessions) == []
    assert want(sessions).state == "wanted"  # the other device is free, and the job's
    with sessions.begin() as session:
        inference.end(session, server.id, None)
    assert want(sessions).state == "wanted"
    assert schedule(sessions) == [job]


def test_job_that_others_keep_waiting_leaves_a_device(sessions: Sessions) -> None:
    join(sessions, slots=2)
    running = create_job(sessions)
    assert schedule(sessions) == [running]
    create_job(sessions, resources={"gpus": 2})
    assert schedule(sessions) == []
    assert want(sessions).state == "starting"


def test_sharing_job_and_server_use_one_device(sessions: Sessions) -> None:
    join(sessions)
    job = create_job(sessions, resources={"allow_sharing": True})
    assert schedule(sessions) == [job]
    server = ready(sessions)
    assert server.number == 0
    assert want(sessions, "another").state == "wanted"
    create_job(sessions, resources={"allow_sharing": True})
    schedule(sessions)
    assert get(sessions, server.id).state in ("ready", "stopping")


def test_server_that_takes_the_whole_device_shares_it_with_no_job(sessions: Sessions) -> None:
    join(sessions, shares=False)
    job = create_job(sessions, resources={"allow_sharing": True})
    assert schedule(sessions) == [job]
    assert want(sessions).state == "wanted"


def test_sharing_job_has_a_server_end_that_takes_the_whole_device(sessions: Sessions) -> None:
    join(sessions, shares=False)
    server = ready(sessions)
    create_job(sessions, resources={"allow_sharing": True})
    assert schedule(sessions) == []
    assert get(sessions, server.id).state == "stopping"


def test_kept_server_is_no_jobs(sessions: Sessions) -> None:
    join(sessions, kind="kept")
    server = ready(sessions)
    create_job(sessions)
    assert schedule(sessions) == []
    assert get(sessions, server.id).state == "ready"


def test_worker_without_inference_gets_none(sessions: Sessions) -> None:
    join(sessions, kind="off")
    assert want(sessions).state == "wanted"


def test_unused_server_makes_room_for_another_model(sessions: Sessions) -> None:
    join(sessions)
    server = ready(sessions)
    want(sessions, "another")
    assert get(sessions, server.id).state == "ready"
    with sessions.begin() as session:
        age(session, "used_at", 20)
    want(sessions, "another")
    assert get(sessions, server.id).state == "stopping"


def test_one_unused_server_ends_for_one_model(sessions: Sessions) -> None:
    join(sessions, slots=3)
    unused = [ready(sessions, base).id for base in "abc"]
    with sessions.begin() as session:
        age(session, "used_at", 20)
    for _ in range(3):
        want(sessions, "another")
    assert [get(sessions, each).state for each in unused] == ["stopping", "ready", "ready"]
    want(sessions, "second")
    assert [get(sessions, each).state for each in unused] == ["stopping", "stopping", "ready"]


def test_person_gets_the_device_of_an_evaluation(sessions: Sessions) -> None:
    join(sessions)
    server = ready(sessions, background=True)
    with sessions.begin() as session:
        inference.use(session, server.id, background=True)
    want(sessions, "another", background=True)
    assert get(sessions, server.id).state == "ready"  # else two evaluations would take it from each other
    want(sessions, "another")
    assert get(sessions, server.id).state == "stopping"


def test_evaluation_gets_what_nobody_uses(sessions: Sessions) -> None:
    join(sessions)
    server = ready(sessions)
    with sessions.begin() as session:
        age(session, "used_at", 20)
    want(sessions, "another", background=True)
    assert get(sessions, server.id).state == "ready"
    with sessions.begin() as session:
        age(session, "used_at", 10)
    want(sessions, "another", background=True)
    assert get(sessions, server.id).state == "stopping"


def test_evaluation_leaves_the_server_of_a_person(sessions: Sessions) -> None:
    join(sessions)
    server = ready(sessions)
    with sessions.begin() as session:
        inference.use(session, server.id, background=True)  # of the same base model
    want(sessions, "another")
    assert get(sessions, server.id).state == "ready"


def test_wanted_server_of_a_person_comes_first(sessions: Sessions) -> None:
    waits = want(sessions, background=True)
    join(sessions)
    with sessions.begin() as session:
        inference.want(session, "another")
    assert want(sessions, background=True).state == "wanted"
    join(sessions, "second")
    assert want(sessions, background=True).worker == "second"
    assert get(sessions, waits.id).state == "starting"


def test_silent_workers_server_answers_elsewhere(sessions: Sessions) -> None:
    join(sessions)
    server = ready(sessions)
    with sessions.begin() as session:
        age(session, "seen_at", 20)
        session.execute(sa.update(Worker).values(seen_at=sa.func.now() - sa.text("interval '20 seconds'")))
        inference.stop_unseen(session)
    assert get(sessions, server.id).state == "stopping"
    join(sessions, "second")
    assert want(sessions).worker == "second"


def test_request_leaves_the_server_of_a_silent_worker(sessions: Sessions) -> None:
    join(sessions)
    server = ready(sessions)
    with sessions.begin() as session:
        age(session, "seen_at", 20)
        session.execute(sa.update(Worker).values(seen_at=sa.func.now() - sa.text("interval '20 seconds'")))
    assert want(sessions).state == "wanted"
    assert get(sessions, server.id).state == "stopping"


def test_gpu_is_better_than_a_cpu(sessions: Sessions) -> None:
    join(sessions, "a cpu")
    with sessions.begin() as session:
        gpu = Gpu(uuid="g", name="H200", memory_bytes=None, compute_capability=(9, 0))
        machine = cpu(1).model_copy(update={"gpus": [gpu]})
        workers.register(session, "the gpus", "first", "localhost", machine)
    assert want(sessions).worker == "the gpus"
    assert want(sessions, "another").worker == "a cpu"


def test_device_on_which_a_server_failed_comes_last(sessions: Sessions) -> None:
    join(sessions, slots=2)
    devices = []
    for _ in range(3):
        server = want(sessions)
        devices.append(server.number)
        with sessions.begin() as session:
            inference.end(session, server.id, Failure(code=FailureCode.OUT_OF_MEMORY, message="no room"))
        with sessions.begin() as session:
            age(session, "changed_at", 60)
    assert devices == [0, 1, 0]


def test_model_that_cannot_be_loaded_blames_no_device(sessions: Sessions) -> None:
    join(sessions, slots=2)
    with sessions.begin() as session:
        failure = Failure(code=FailureCode.MODEL_UNSUPPORTED, message="no")
        inference.end(session, want(sessions).id, failure)
    assert want(sessions, "another").number == 0


def test_failed_server_is_tried_again_later(sessions: Sessions) -> None:
    join(sessions)
    server = want(sessions)
    failure = Failure(code=FailureCode.MODEL_UNSUPPORTED, message="no")
    with sessions.begin() as session:
        inference.end(session, server.id, failure)
    failed = want(sessions)
    assert (failed.id, failed.state, failed.worker) == (server.id, "failed", None)
    with sessions.begin() as session:
        age(session, "changed_at", 60)
    assert want(sessions).state == "starting"
