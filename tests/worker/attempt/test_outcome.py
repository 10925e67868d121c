import pytest

from contract.events import DoneEvent
from contract.failure import Failure, FailureCode
from contract.fault import Fault
from contract.status import JobStatus, RequestedAction
from worker.attempt.outcome import Outcome, decide

COMPLETED = DoneEvent(time=0, step=9, completed=True, train_loss=1.0, eval_loss=None)
STOPPED = DoneEvent(time=0, step=4, completed=False, train_loss=1.0, eval_loss=None)
ERROR = Failure(code=FailureCode.OUT_OF_MEMORY, message="too big")
CRASH = Failure(code=FailureCode.TRAINER_CRASHED, message="Connection closed by peer")
TORCHRUN_REPORT = """
  rank      : 0 (local_rank: 0)
  exitcode  : -9 (pid: 4242)
  traceback : Signal 9 (SIGKILL) received by PID 4242
"""


@pytest.mark.parametrize("requested_action", RequestedAction)
def test_completed_run_succeeds_whatever_was_requested_late(requested_action: RequestedAction) -> None:
    assert decide(0, COMPLETED, None, requested_action, False, "").status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("requested_action", [RequestedAction.CANCEL, RequestedAction.FORCE_CANCEL])
def test_cancelled_run_is_cancelled_in_any_case(requested_action: RequestedAction) -> None:
    for exit_code, done, error in ((0, STOPPED, None), (0, None, None), (137, None, None), (1, None, ERROR)):
        assert decide(exit_code, done, error, requested_action, False, "").status is JobStatus.CANCELLED


@pytest.mark.parametrize(
    ("requested_action", "status"),
    [(RequestedAction.PAUSE, JobStatus.PAUSED), (RequestedAction.PREEMPT, JobStatus.QUEUED), (None, JobStatus.QUEUED)],
)
def test_set_aside_run_waits_in_any_case(requested_action: RequestedAction | None, status: JobStatus) -> None:
    for exit_code, done, error in ((0, STOPPED, None), (1, STOPPED, CRASH), (137, None, None), (1, None, CRASH)):
        assert decide(exit_code, done, error, requested_action, requested_action is None, TORCHRUN_REPORT) == Outcome(
            status
        )


@pytest.mark.parametrize("requested_action", [RequestedAction.PAUSE, RequestedAction.PREEMPT])
def test_own_failure_while_set_aside_counts(requested_action: RequestedAction) -> None:
    assert decide(1, None, ERROR, requested_action, False, "") == Outcome(JobStatus.FAILED, ERROR)


@pytest.mark.parametrize("exit_code", [0, 1])
def test_stopped_run_goes_back_to_the_queue(exit_code: int) -> None:
    assert decide(exit_code, STOPPED, None, None, False, "").status is JobStatus.QUEUED


@pytest.mark.parametrize("exit_code", [0, 1, 137, 143])
def test_speechless_stopped_run_goes_back_too(exit_code: int) -> None:
    assert decide(exit_code, None, None, None, True, "").status is JobStatus.QUEUED


def test_own_failure_while_stopping_counts() -> None:
    assert decide(1, None, ERROR, None, True, "").status is JobStatus.FAILED


def test_full_disk_is_read_from_the_log() -> None:
    failure = decide(1, None, None, None, False, "OSError: [Errno 28] No space left on device").failure
    assert failure is not None
    assert failure.code is FailureCode.DISK_FULL


def test_trainers_own_reason_is_kept() -> None:
    assert decide(1, None, ERROR, None, False, TORCHRUN_REPORT).failure == ERROR
    assert decide(1, None, CRASH, None, False, "exitcode  : 1 (pid: 4242)").failure == CRASH


@pytest.mark.parametrize(("exit_code", "log_tail"), [(137, ""), (1, TORCHRUN_REPORT)])
def test_crash_after_a_kill_is_a_kill(exit_code: int, log_tail: str) -> None:
    failure = decide(exit_code, None, CRASH, None, False, log_tail).failure
    assert failure is not None
    assert failure.code is FailureCode.TRAINER_KILLED


@pytest.mark.parametrize("reason", [FailureCode.INTERNAL_ERROR, FailureCode.MODEL_UNSUPPORTED])
def test_fault_after_a_killed_rank_is_a_kill(reason: FailureCode) -> None:
    fault = Fault(exception="builtins.RuntimeError", location="x.py:1 f", step=None)
    error = Failure(code=reason, message="a peer has gone", fault=fault)
    failure = decide(1, None, error, None, False, TORCHRUN_REPORT).failure
    assert failure is not None
    assert failure.code is FailureCode.TRAINER_KILLED


def test_internal_error_during_a_pause_is_a_failure() -> None:
    error = Failure(code=FailureCode.INTERNAL_ERROR, message="a bug")
    assert decide(1, None, error, RequestedAction.PAUSE, True, "") == Outcome(JobStatus.FAILED, error)


def test_rank_ended_by_torchrun_was_not_killed() -> None:
    log = "Sending process 4242 closing signal SIGTERM\n" + TORCHRUN_REPORT
    assert decide(1, None, CRASH, None, False, log).failure == CRASH
    failure = decide(1, None, None, None, False, log).failure
    assert failure is not None
    assert failure.code is FailureCode.TRAINER_CRASHED


def test_completed_run_outlasts_a_launcher_crash() -> None:
    assert decide(1, COMPLETED, None, None, False, "").status is JobStatus.SUCCEEDED


@pytest.mark.parametrize(("exit_code", "log_tail"), [(137, ""), (1, TORCHRUN_REPORT)])
def test_kill_is_named_by_its_victim(exit_code: int, log_tail: str) -> None:
    failure = decide(exit_code, None, None, None, False, log_tail).failure
    assert failure is not None
    assert failure.code is FailureCode.TRAINER_KILLED
    assert "SIGKILL" in failure.message


@pytest.mark.parametrize("exit_code", [0, 1, 3])
def test_end_without_a_word_is_a_crash(exit_code: int) -> None:
    failure = decide(exit_code, None, None, None, False, "").failure
    assert failure is not None
    assert failure.code is FailureCode.TRAINER_CRASHED
