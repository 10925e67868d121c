import pytest

from contract.events import Checkpoint
from contract.recipe import Recipe
from store import artifacts
from store.errors import ArtifactNotFound
from store.jobs import jobs
from store.session import Sessions
from tests.publishing import publish_rows


@pytest.fixture
def job_id(sessions: Sessions) -> str:
    with sessions.begin() as session:
        return jobs.create(session, Recipe.model_validate({"model": "m", "dataset": "d.jsonl"})).id


def save(sessions: Sessions, job_id: str, step: int, loss: float | None, final: bool = False) -> None:
    event = Checkpoint(time=1, step=step, path=f"step-{step}", bytes=1, final=final, eval_loss=loss)
    with sessions.begin() as session:
        artifacts.add_checkpoint(session, job_id, 1, event)
    publish_rows(sessions)


def best(sessions: Sessions, job_id: str) -> str:
    with sessions.begin() as session:
        return artifacts.get(session, job_id, artifacts.BEST).name


def test_the_best_is_what_was_saved_with_the_lowest_evaluation_loss(sessions: Sessions, job_id: str) -> None:
    save(sessions, job_id, 2, 1.5)
    save(sessions, job_id, 4, 1.1)
    save(sessions, job_id, 6, None)
    save(sessions, job_id, 8, 1.3, final=True)
    assert best(sessions, job_id) == "checkpoint-4.tar.gz"


def test_of_equals_the_earliest_is_the_best_and_the_adapter_before_its_own_checkpoint(
    sessions: Sessions, job_id: str
) -> None:
    save(sessions, job_id, 12, 1.0)
    save(sessions, job_id, 12, 1.0, final=True)
    assert best(sessions, job_id) == "adapter.tar.gz"
    save(sessions, job_id, 4, 1.0)
    assert best(sessions, job_id) == "checkpoint-4.tar.gz"


def test_without_an_evaluation_there_is_no_best_and_it_says_why(sessions: Sessions, job_id: str) -> None:
    save(sessions, job_id, 2, None)
    with pytest.raises(ArtifactNotFound, match=r"no artifact best.tar.gz: .*evaluation.fraction"):
        best(sessions, job_id)
