from contract.status import TERMINAL, TRANSITIONS, JobStatus, allowed_from


def test_every_status_has_its_row_in_the_table() -> None:
    assert set(TRANSITIONS) == set(JobStatus)


def test_ends_are_succeeded_failed_and_cancelled() -> None:
    assert {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED} == TERMINAL


def test_only_a_queued_job_can_start_to_run() -> None:
    assert allowed_from(JobStatus.RUNNING) == {JobStatus.QUEUED}


def test_job_can_be_cancelled_until_it_has_ended() -> None:
    assert allowed_from(JobStatus.CANCELLED) == set(JobStatus) - TERMINAL
