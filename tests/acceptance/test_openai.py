"""The official SDK of OpenAI, as it is, against a running service."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, cast

import httpx
import openai
import pytest
from openai.types.fine_tuning import FineTuningJob

from tests.support.service import Service
from tests.support.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture
def client(live: Service) -> Iterator[openai.OpenAI]:
    key = live.client.post("/keys", json={"owner": "anna"}).json()["secret"]
    with openai.OpenAI(base_url=f"{live.client.base_url}/v1", api_key=key, max_retries=2) as client:
        yield client


def create(client: openai.OpenAI, name: str = "steps=2", **fields: Any) -> FineTuningJob:
    recipe = {"name": name, **fields.pop("recipe", {})}
    fields = {"model": "tiny", "training_file": "rows.jsonl", **fields}
    return client.fine_tuning.jobs.create(**fields, extra_body={"recipe": recipe})


@pytest.fixture
def rows() -> bytes:
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
    return (json.dumps(row) + "\n").encode() * 12


def ended(client: openai.OpenAI, job_id: str) -> FineTuningJob:
    def look() -> FineTuningJob | None:
        job = client.fine_tuning.jobs.retrieve(job_id)
        return job if job.status in ("succeeded", "failed", "cancelled") else None

    return until(look)


def test_files_are_uploaded_read_listed_and_deleted(client: openai.OpenAI, rows: bytes) -> None:
    file = client.files.create(file=("my rows.jsonl", rows), purpose="fine-tune")
    assert (file.object, file.bytes, file.filename, file.purpose) == ("file", len(rows), "my rows.jsonl", "fine-tune")
    assert client.files.wait_for_processing(file.id).status == "processed"
    assert client.files.retrieve(file.id) == client.files.wait_for_processing(file.id)
    assert client.files.content(file.id).read() == rows
    more = [client.files.create(file=(f"{number}.jsonl", rows), purpose="fine-tune").id for number in range(3)]
    mine = [file.id, *more]
    assert [each.id for each in client.files.list(limit=2) if each.id in mine] == mine[::-1]
    assert [each.id for each in client.files.list(limit=2, order="asc") if each.id in mine] == mine
    assert list(client.files.list(purpose="vision")) == []
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_file_that_cannot_be_trained_on_says_why(client: openai.OpenAI, rows: bytes) -> None:
    file = client.files.create(file=("bad.jsonl", rows + b'{"messages": 3}\n'), purpose="fine-tune")
    bad = client.files.wait_for_processing(file.id)
    assert bad.status == "error"
    assert bad.status_details
    assert "13" in bad.status_details
    with pytest.raises(openai.BadRequestError, match="13"):
        create(client, training_file=file.id)
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("rows.jsonl", rows), purpose="vision")


def test_file_expires_when_it_is_asked_to(client: openai.OpenAI, rows: bytes) -> None:
    after = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(file=("rows.jsonl", rows), purpose="fine-tune", expires_after=after)  # type: ignore[arg-type]
    assert file.expires_at == file.created_at + 3600
    with pytest.raises(openai.BadRequestError):
        client.files.create(file=("a", rows), purpose="fine-tune", expires_after={**after, "seconds": 1})  # type: ignore[arg-type]


def test_job_goes_its_whole_way(client: openai.OpenAI, live: Service, rows: bytes) -> None:
    file, held_out = (client.files.create(file=(name, rows), purpose="fine-tune") for name in ("a.jsonl", "b.jsonl"))
    job = create(
        client,
        "steps=4 every=2",
        training_file=file.id,
        validation_file=held_out.id,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}}},
        metadata={"team": "red"},
        seed=7,
    )
    assert (job.object, job.model, job.organization_id) == ("fine_tuning.job", "tiny", "anna")
    assert job.status in ("queued", "running")  # A worker may have it by then.
    assert (job.hyperparameters.n_epochs, job.hyperparameters.learning_rate_multiplier) == (2, 1)
    assert (job.seed, job.metadata, job.error, job.fine_tuned_model) == (7, {"team": "red"}, None, None)
    assert job.method
    assert job.method.type == "supervised"
    assert (job.training_file, job.validation_file) == (file.id, held_out.id)
    done = ended(client, job.id)
    assert (done.status, done.error) == ("succeeded", None)
    assert done.finished_at
    assert done.trained_tokens is not None
    assert done.fine_tuned_model == f"ft:tiny:anna::{job.id.removeprefix('job_')}"
    assert done.model_extra
    assert done.model_extra["recipe"]["schedule"]["epochs"] == 2
    (results,) = done.result_files
    assert client.files.retrieve(results).purpose == "fine-tune-results"
    lines = client.files.content(results).read().decode().splitlines()
    assert lines[0].split(",")[:4] == ["step", "train_loss", "train_accuracy", "train_mean_token_accuracy"]
    losses = live.metrics(job.id)["loss"]
    assert [line.split(",")[:2] for line in lines[1:]] == [
        [str(step), str(loss)] for step, loss in enumerate(losses, 1)
    ]


@pytest.mark.exhaustive
def test_results_are_listed_and_deleted_as_files(client: openai.OpenAI, live: Service, rows: bytes) -> None:
    before = {file.id for file in client.files.list()}
    first = client.files.create(file=("first.jsonl", rows), purpose="fine-tune").id
    jobs = [ended(client, create(client, f"steps={steps} every=1").id) for steps in (3, 1)]
    last = client.files.create(file=("last.jsonl", rows), purpose="fine-tune").id
    results = [job.result_files[0] for job in jobs]
    all_files = [first, *results, last]
    for limit in (1, 2, 3, 100):
        listed = [file.id for file in client.files.list(limit=limit) if file.id not in before]
        assert listed == all_files[::-1]
        ascending = [file.id for file in client.files.list(limit=limit, order="asc") if file.id not in before]
        assert ascending == all_files
    reported = {file.id: file for file in client.files.list(purpose="fine-tune-results", limit=1)}
    assert [each for each in reported if each not in before] == results[::-1]
    for results_id in results:
        assert reported[results_id] == client.files.retrieve(results_id)
        assert reported[results_id].bytes == len(client.files.content(results_id).read())
    data = [file.id for file in client.files.list(purpose="fine-tune") if file.id not in before]
    assert data == [last, first]
    key = live.client.post("/keys", json={"owner": "cora"}).json()["secret"]
    other = client.with_options(api_key=key)
    assert list(other.files.list()) == []
    for ask in (other.files.retrieve, other.files.delete):
        with pytest.raises(openai.NotFoundError):
            ask(results[0])
    with pytest.raises(openai.NotFoundError):
        other.files.list(after=results[0])
    assert client.files.delete(results[0]).deleted
    assert results[0] not in [file.id for file in client.files.list()]
    assert client.fine_tuning.jobs.retrieve(jobs[0].id).result_files == []
    asks: tuple[Callable[[str], object], ...] = (client.files.retrieve, client.files.content, client.files.delete)
    for request in asks:
        with pytest.raises(openai.NotFoundError):
            request(results[0])


@pytest.mark.exhaustive
def test_lists_are_paged_and_filtered_by_the_sdk(client: openai.OpenAI) -> None:
    made = [create(client, metadata={"run": "paged", "place": str(number)}).id for number in range(5)]
    create(client)
    paged = list(client.fine_tuning.jobs.list(limit=2, metadata={"run": "paged"}))
    assert [job.id for job in paged] == made[::-1]
    (one,) = client.fine_tuning.jobs.list(metadata={"run": "paged", "place": "3"})
    assert one.id == made[3]
    for job_id in made:
        ended(client, job_id)


def test_events_are_listed_once_and_newest_first(client: openai.OpenAI, live: Service) -> None:
    job = create(client, "steps=6")
    ended(client, job.id)
    reported = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [event.data["step"] for event in reported if event.type == "metrics"] == [6, 5, 4, 3, 2, 1]  # type: ignore[index]
    ours = [event_id for kind, event_id, _ in live.events(job.id) if kind != "queue"]
    theirs = [".".join(event.id.split("-")[2:4]) for event in reported]
    assert theirs[::-1] == ours
    metric = next(event for event in reported if event.type == "metrics")
    assert re.fullmatch(r"Step 6/6: training loss=\d\.\d{4}", metric.message)


def test_messages_that_scripts_search_come_in_order(client: openai.OpenAI) -> None:
    job = create(client, "steps=4 every=2", suffix="mine", validation_file="rows.jsonl")
    model = ended(client, job.id).fine_tuned_model
    events = [*client.fine_tuning.jobs.list_events(job.id)][::-1]
    assert [event.message for event in events if not event.message.startswith("Step")] == [
        f"Created fine-tuning job: {job.id}",
        "Validating training file: rows.jsonl and validation file: rows.jsonl",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        "Training started: 4 steps, 1000 examples",
        f"Checkpoint created at step 2 with Snapshot ID: {model}:ckpt-step-2",
        f"Checkpoint created at step 4 with Snapshot ID: {model}:ckpt-step-4",
        f"New fine-tuned model created: {model}",
        "Training ended after step 4",
        "The job has successfully completed",
    ]
    assert [event.message.partition(":")[0] for event in events if event.message.startswith("Step")] == [
        f"Step {step}/4" for step in (1, 2, 3, 4)
    ]


def test_checkpoints_are_listed_with_the_names_of_models(client: openai.OpenAI, live: Service) -> None:
    job = create(client, "steps=8 every=2", suffix="mine")
    model = ended(client, job.id).fine_tuned_model
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert [each.step_number for each in checkpoints] == [8, 6, 4]
    assert checkpoints[0].fine_tuned_model_checkpoint == model
    assert checkpoints[-1].metrics.train_loss == live.metrics(job.id)["loss"][3]
    name = checkpoints[-1].fine_tuned_model_checkpoint
    assert name.startswith("ft:tiny:anna:mine:")
    assert name.endswith(":ckpt-step-4")
    assert client.models.retrieve(name).id == name


def test_models_are_bases_and_fine_tuned_ones(client: openai.OpenAI, live: Service) -> None:
    job = ended(client, create(client).id)
    assert job.fine_tuned_model
    names = [model.id for model in client.models.list()]
    assert {"tiny", job.fine_tuned_model} <= set(names)
    assert client.models.retrieve("tiny").owned_by == "finetuned"
    assert client.models.retrieve(job.fine_tuned_model).owned_by == "anna"
    assert (live.run_dir(job.id).adapter / "adapter_config.json").exists()
    assert client.models.delete(job.fine_tuned_model).deleted
    until(lambda: not list(live.run_dir(job.id).path.glob("**/adapter_config.json")))
    left = live.client.get(f"/jobs/{job.id}/artifacts").json()["data"]
    assert {artifact["kind"] for artifact in left} == {"log", "metrics", "results", "curve", "card"}
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(job.fine_tuned_model)
    with pytest.raises(openai.NotFoundError):
        client.models.delete("tiny")
    assert client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model is None


def test_job_is_paused_resumed_and_cancelled(client: openai.OpenAI) -> None:
    job = create(client, "steps=1000 sleep=0.05")
    until(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "running")
    assert client.fine_tuning.jobs.pause(job.id).status in ("pausing", "paused")
    until(lambda: str(client.fine_tuning.jobs.retrieve(job.id).status) == "paused")
    assert client.fine_tuning.jobs.resume(job.id).status in ("queued", "running")
    until(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "running")
    client.fine_tuning.jobs.cancel(job.id)
    assert ended(client, job.id).status == "cancelled"


def test_failed_job_says_why(client: openai.OpenAI) -> None:
    job = ended(client, create(client, "fail=loss_not_finite").id)
    assert job.status == "failed"
    assert job.error
    assert (job.error.code, bool(job.error.message)) == ("loss_not_finite", True)


def test_errors_are_the_sdks_own_classes(client: openai.OpenAI, live: Service) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        create(client, method={"type": "reinforcement"})
    assert (bad.value.param, bad.value.code) == ("method.type", "invalid_parameter")
    with pytest.raises(openai.BadRequestError, match="n_epochs"):
        create(client, hyperparameters={"n_epochs": 0})
    with pytest.raises(openai.BadRequestError, match="nothing"):
        create(client, extra_query={}, recipe={"nothing": 1})
    with pytest.raises(openai.NotFoundError) as missing:
        client.fine_tuning.jobs.retrieve("job_" + "0" * 24)
    assert missing.value.code == "not_found"
    assert missing.value.request_id
    with (
        openai.OpenAI(base_url=f"{live.client.base_url}/v1", api_key="sk-ft-wrong") as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()
    done = ended(client, create(client).id)
    with pytest.raises(openai.ConflictError, match="succeeded and cannot become cancelled"):
        client.fine_tuning.jobs.cancel(done.id)


def test_owner_over_quota_gets_a_rate_limit_error(live: Service) -> None:
    live.client.put("/quotas/dora", json={"queued_jobs": 0}).raise_for_status()
    key = live.client.post("/keys", json={"owner": "dora"}).json()["secret"]
    sent: list[httpx.Request] = []
    with (
        closing(cast(Any, httpx.Client(event_hooks={"request": [sent.append]}))) as http,
        openai.OpenAI(base_url=f"{live.client.base_url}/v1", api_key=key, http_client=http) as client,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        create(client)
    assert (refused.value.code, len(sent)) == ("quota_exceeded", 1)


@pytest.mark.parametrize("what", ["a job", "a file"])
def test_post_with_a_lost_answer_creates_once(live: Service, rows: bytes, what: str) -> None:
    """As a proxy that loses the first answer: the SDK sends the request again by itself."""
    key = live.client.post("/keys", json={"owner": f"bert-{what[2:]}"}).json()["secret"]
    sent: list[str] = []

    class Losing(httpx.BaseTransport):
        def __init__(self) -> None:
            self.real = httpx.HTTPTransport()

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = self.real.handle_request(request)
            if request.method == "POST":
                answer.read()
                sent.append(json.loads(answer.content)["id"])
                if len(sent) == 1:
                    return httpx.Response(500, request=request)
            return answer

        def close(self) -> None:
            self.real.close()

    http = cast(Any, httpx.Client(transport=Losing()))
    with openai.OpenAI(base_url=f"{live.client.base_url}/v1", api_key=key, http_client=http) as client:
        if what == "a file":
            made = client.files.create(file=("rows.jsonl", rows), purpose="fine-tune").id
            assert [each.id for each in client.files.list()] == [made]
        else:
            made = create(client).id
            assert [each.id for each in client.fine_tuning.jobs.list()] == [made]
            ended(client, made)
        assert sent == [made, made]


def test_any_key_is_accepted_on_ones_own_machine(live: Service) -> None:
    with openai.OpenAI(base_url=f"{live.client.base_url}/v1", api_key="none") as client:
        assert "tiny" in {model.id for model in client.models.list()}
