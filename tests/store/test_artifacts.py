import pytest

from contract.events import CheckpointEvent
from store import artifacts
from store.errors import ArtifactNotFound
from store.jobs import jobs
from store.session import Sessions
from tests.support.artifacts import publish_rows
from tests.support.jobs import make_recipe


@pytest.fixture
def job_id(sessions: Sessions) -> str:
    with sessions.begin() as session:
        return jobs.create(session, make_recipe()).id


def save(
    sessions: Sessions,
    job_id: str,
    step: int,
    loss: float | None,
    final: bool = False,
    rewards: tuple[float, float] | None = None,
) -> None:
    """`rewards` are their accuracy and margin."""
    accuracy, margin = rewards or (None, None)
    event = CheckpointEvent(
        time=1,
        step=step,
        path=f"step-{step}",
        bytes=1,
        final=final,
        eval_loss=loss,
        reward_accuracy=accuracy,
        reward_margin=margin,
    )
    with sessions.begin() as session:
        artifacts.add_checkpoint(session, job_id, 1, event)
    publish_rows(sessions)


def best(sessions: Sessions, job_id: str) -> str:
    with sessions.begin() as session:
        return artifacts.get(session, job_id, artifacts.BEST).name


def test_best_has_the_lowest_evaluation_loss(sessions: Sessions, job_id: str) -> None:
    save(sessions, job_id, 2, 1.5)
    save(sessions, job_id, 4, 1.1)
    save(sessions, job_id, 6, None)
    save(sessions, job_id, 8, 1.3, final=True)
    assert best(sessions, job_id) == "checkpoint-4.tar"


def test_best_has_the_highest_reward_accuracy_then_margin(sessions: Sessions, job_id: str) -> None:
    save(sessions, job_id, 2, 0.60, rewards=(0.65, 0.3))
    save(sessions, job_id, 4, 0.72, rewards=(0.85, 0.4))
    assert best(sessions, job_id) == "checkpoint-4.tar"
    save(sessions, job_id, 6, 0.80, rewards=(0.85, 0.9))
    assert best(sessions, job_id) == "checkpoint-6.tar"


def test_earliest_of_equals_is_best(sessions: Sessions, job_id: str) -> None:
    save(sessions, job_id, 12, 1.0)
    save(sessions, job_id, 12, 1.0, final=True)
    assert best(sessions, job_id) == "adapter.tar"
    save(sessions, job_id, 4, 1.0)
    assert best(sessions, job_id) == "checkpoint-4.tar"


def test_unevaluated_job_has_no_best(sessions: Sessions, job_id: str) -> None:
    save(sessions, job_id, 2, None)
    with pytest.raises(ArtifactNotFound, match=r"no artifact best.tar: .*evaluation.fraction"):
        best(sessions, job_id)
