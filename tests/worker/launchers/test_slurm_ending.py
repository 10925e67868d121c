import pytest

from contract.failure import FailureCode
from worker.launchers.slurm_ending import Left, ending, not_begun_on, seconds

RUN = {"PreemptTime": "None", "TimeLimit": "1-00:00:00", "RunTime": "00:05:00", "NodeList": "n1", "ExitCode": "0:0"}
KILLED = Left(exit_code=None, was_stopped=True)
SAVED = Left(exit_code=1, was_stopped=True, saved=True)


@pytest.mark.parametrize("left", [KILLED, SAVED])
def test_preemption_is_no_failure(left: Left) -> None:
    hard = ending({**RUN, "JobState": "PREEMPTED"}, left, stop_requested=False)
    saved = ending({**RUN, "JobState": "FAILED", "PreemptTime": "1796071210"}, left, stop_requested=False)
    assert (hard.excused, hard.failure) == (saved.excused, saved.failure) == (True, None)


def test_time_limit_after_saving_is_no_failure() -> None:
    ended = ending({**RUN, "JobState": "FAILED", "RunTime": "23:58:50"}, SAVED, stop_requested=False)
    assert (ended.excused, ended.failure) == (True, None)
    assert ended.message == "the job reached the time limit of 1-00:00:00 and has saved; it goes on"


def test_time_limit_without_a_step_further_is_a_failure() -> None:
    left = Left(exit_code=1, was_stopped=True, saved=False)
    ended = ending({**RUN, "JobState": "FAILED", "RunTime": "23:58:50"}, left, stop_requested=False)
    assert ended.failure is not None
    assert (ended.failure.code, ended.excused) == (FailureCode.TRAINER_KILLED, False)


def test_stop_long_before_the_limit_is_another_thing() -> None:
    assert ending({**RUN, "JobState": "FAILED"}, SAVED, stop_requested=False).excused is False


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("TIMEOUT", FailureCode.TRAINER_KILLED),
        ("OUT_OF_MEMORY", FailureCode.OUT_OF_MEMORY),
        ("CANCELLED", FailureCode.CANCELLED_IN_CLUSTER),
        ("NODE_FAIL", FailureCode.NODE_LOST),
    ],
)
def test_each_end_has_its_failure(state: str, code: FailureCode) -> None:
    ended = ending({**RUN, "JobState": state}, KILLED, stop_requested=False)
    assert ended.failure is not None
    assert ended.failure.code is code
    assert ended.excused is False


def test_job_that_slurm_has_forgotten_ended_as_its_script_says() -> None:
    assert ending({}, Left(0, was_stopped=False), stop_requested=False).failure is None
    lost = ending({}, Left(None, was_stopped=False), stop_requested=False).failure
    assert lost is not None
    assert lost.code is FailureCode.NODE_LOST


def test_what_was_asked_for_is_no_failure() -> None:
    ended = ending({**RUN, "JobState": "CANCELLED", "ExitCode": "0:15"}, KILLED, stop_requested=True)
    assert (ended.exit_code, ended.failure) == (143, None)


def test_job_that_the_controller_forgot_was_cancelled_by_nobody() -> None:
    forgotten = {**RUN, "JobState": "CANCELLED", "StartTime": "1796071210"}
    ended = ending(forgotten, Left(None, was_stopped=False, claimed_at=1796071195.0), stop_requested=False)
    assert ended.failure is not None
    assert ended.failure.code is FailureCode.NODE_LOST


@pytest.mark.parametrize(("state", "given", "code"), [("COMPLETED", "0:0", 0), ("FAILED", "3:0", 3)])
def test_exit_code_is_slurms_where_no_file_is_seen(state: str, given: str, code: int) -> None:
    ended = ending({**RUN, "JobState": state, "ExitCode": given}, Left(None, was_stopped=False), stop_requested=False)
    assert (ended.exit_code, ended.failure) == (code, None)


def test_job_that_a_new_worker_ended_goes_on() -> None:
    left = Left(None, was_stopped=True, told_to_stop=True)
    ended = ending({**RUN, "JobState": "CANCELLED", "ExitCode": "0:15"}, left, stop_requested=False)
    assert (ended.excused, ended.failure) == (True, None)


def test_second_start_is_told_from_a_lost_node() -> None:
    ended = ending({**RUN, "JobState": "FAILED", "ExitCode": "76:0"}, KILLED, stop_requested=False)
    assert ended.failure is not None
    assert "a second start of the attempt" in ended.failure.message


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ("CANCELLED", "0:0", "did not begin on n1: its prolog failed"),
        ("FAILED", "0:53", "did not begin on n1: that node cannot write to the run folder"),
        ("FAILED", "76:0", "did not begin on n1: that node cannot write to the run folder"),
    ],
)
def test_node_where_nothing_began_is_named(state: str, code: str, words: str) -> None:
    details = {**RUN, "JobState": state, "ExitCode": code, "BatchHost": "n1"}
    ended = ending(details, Left(None, was_stopped=False), stop_requested=False)
    assert ended.failure is not None
    assert ended.failure.code is FailureCode.NODE_LOST
    assert words in ended.failure.message


@pytest.mark.parametrize(
    ("state", "code", "node", "told_to_stop"),
    [("CANCELLED", "0:0", "(null)", False), ("CANCELLED", "0:15", "n1", False), ("FAILED", "76:0", "n1", True)],
    ids=["cancelled while it was pending", "cancelled in its first second", "told to stop before it began"],
)
def test_end_before_the_start_may_be_no_nodes_fault(state: str, code: str, node: str, told_to_stop: bool) -> None:
    details = {"JobState": state, "ExitCode": code, "BatchHost": node}
    assert not_begun_on(details, Left(None, was_stopped=False, told_to_stop=told_to_stop)) is None


@pytest.mark.parametrize(("given", "found"), [("00:01:00", 60), ("2-03:04:05", 183845), ("UNLIMITED", None)])
def test_durations_are_read_as_slurm_prints_them(given: str, found: int | None) -> None:
    assert seconds(given) == found
