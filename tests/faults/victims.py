"""The processes of a job that tests kill."""

from tests.support.processes import parent_of, read_proc
from tests.support.service import Service


def command_has(live: Service, job_id: str, word: bytes) -> list[int]:
    return [pid for pid in live.processes(job_id) if word in read_proc(pid, "cmdline")]


def ranks(live: Service, job_id: str) -> list[int]:
    return command_has(live, job_id, b"--rank")


def guard(live: Service, job_id: str) -> int:
    (pid,) = command_has(live, job_id, b"guard.py")
    return pid


def launcher(live: Service, job_id: str) -> int:
    (pid,) = set(command_has(live, job_id, b"fake_trainer.py")) - set(ranks(live, job_id)) - {guard(live, job_id)}
    return pid


def pool_process(live: Service, job_id: str) -> int:
    return parent_of(guard(live, job_id))
