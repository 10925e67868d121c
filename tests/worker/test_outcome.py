import pytest

from contract.events import Done
from contract.failure import Failure, FailureReason
from contract.status import JobStatus, Wish
from worker.outcome import decide

COMPLETED = Done(time=0, step=9, completed=True, train_loss=1.0, eval_loss=None)
STOPPED = Done(time=0, step=4, completed=False, train_loss=1.0, eval_loss=None)
ERROR = Failure(reason=FailureReason.OUT_OF_MEMORY, message="too big")
TORCHRUN_REPORT = """
  rank      : 0 (local_rank: 0)
  exitcode  : -9 (pid: 4242)
  traceback : Signal 9 (SIGKILL) received by PID 4242
"""


def test_a_completed_run_has_succeeded_even_if_a_cancel_came_too_late() -> None:
    assert decide(0, COMPLETED, None, Wish.CANCEL, False, "").status is JobStatus.SUCCEEDED


def test_a_run_that_was_cancelled_is_cancelled_however_it_ended() -> None:
    for exit_code, done in ((0, STOPPED), (0, None), (137, None), (1, None)):
        assert decide(exit_code, done, None, Wish.CANCEL, False, "").status is JobStatus.CANCELLED


@pytest.mark.parametrize("exit_code", [0, 1])
def test_a_run_that_was_stopped_but_not_by_its_owner_goes_back_to_the_queue(exit_code: int) -> None:
    assert decide(exit_code, STOPPED, None, None, False, "").status is JobStatus.QUEUED


@pytest.mark.parametrize("exit_code", [0, 1, 137, 143])
def test_a_run_that_its_worker_stopped_goes_back_to_the_queue_even_if_it_could_not_say_a_word(exit_code: int) -> None:
    assert decide(exit_code, None, None, None, True, "").status is JobStatus.QUEUED


def test_a_failure_of_its_own_while_its_worker_stops_is_still_a_failure() -> None:
    assert decide(1, None, ERROR, None, True, "").status is JobStatus.FAILED


def test_a_full_disk_that_kept_the_trainer_from_saying_so_is_read_from_the_log() -> None:
    failure = decide(1, None, None, None, False, "OSError: [Errno 28] No space left on device").failure
    assert failure is not None
    assert failure.reason is FailureReason.DISK_FULL


def test_the_trainers_own_reason_is_kept() -> None:
    assert decide(1, None, ERROR, None, False, TORCHRUN_REPORT).failure == ERROR


def test_a_completed_run_has_succeeded_even_if_its_launcher_then_crashes() -> None:
    assert decide(1, COMPLETED, None, None, False, "").status is JobStatus.SUCCEEDED


@pytest.mark.parametrize(("exit_code", "log_tail"), [(137, ""), (1, TORCHRUN_REPORT)])
def test_a_kill_of_the_launcher_or_of_a_rank_is_told_as_such(exit_code: int, log_tail: str) -> None:
    failure = decide(exit_code, None, None, None, False, log_tail).failure
    assert failure is not None
    assert failure.reason is FailureReason.TRAINER_KILLED
    assert "SIGKILL" in failure.message


@pytest.mark.parametrize("exit_code", [0, 1, 3])
def test_an_end_without_a_word_is_a_crash(exit_code: int) -> None:
    failure = decide(exit_code, None, None, None, False, "").failure
    assert failure is not None
    assert failure.reason is FailureReason.TRAINER_CRASHED
