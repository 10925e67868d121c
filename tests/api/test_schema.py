"""Every route, against what the API's own description says of it: schemathesis, with all of its checks, on a database
with one of everything.

Each route gets a right request, and then the cases that schemathesis lists by itself (its coverage phase): every bound,
every wrong type, what is missing or too much, other methods, wrong content types. One case of each kind is sent. Where
-m asks for the exhaustive, all of them are, and what schemathesis draws that fits the description and that does not.

Of the checks these cannot fail here:

- missing_required_header: no route requires a header but Authorization, which ignored_auth looks at.
- response_headers_conformance: the description names no headers of answers.
- use_after_free, ensure_resource_availability: they compare requests of one chain, which schemathesis makes of links
  between routes alone; test_datasets.py, test_webhooks.py and their like ask for what was made and what was deleted.
- object_level_authorization: it wants two identities in its settings; test_tenants.py walks every route with two.

positive_data_acceptance is left out, but for the right request, where a body, a query or a cursor names something, or
an Idempotency-Key a request: what is well-formed may still name what is not there, or have fields that do not go
together.
"""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from pydantic import SecretStr
from schemathesis import Case, GenerationMode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.drivers import CoverageGenerator
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.generation.meta import CoveragePhaseData
from schemathesis.generation.overrides import Override
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.schemas import APIOperation, BaseSchema
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from api.app import assemble, make_services
from api.background.live import Pace
from api.context import Services
from api.settings import ApiSettings
from contract import events
from contract.failure import Failure, FailureCode
from contract.status import JobStatus
from store.access import secrets
from store.jobs import actions, jobs, progress
from store.jobs.attempts import AttemptEnd, finish
from store.models import InferenceServer, Worker
from store.session import Sessions, make_sessions
from tests.support.api import ADMIN_KEY, RATING, description, routes
from tests.support.artifacts import publish
from tests.support.database import empty_database
from tests.support.files import write_dataset, write_model, write_tokenizer
from tests.support.inference_server import FakeInferenceServer, inference_server
from tests.support.jobs import LEASE, RECIPE, RETRIES, claim, make_recipe
from tests.support.settings import SECRET_KEY, VAULT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

# Those of GET change nothing: one seed does for all of them.
ROUTES = sorted(routes(), key=lambda route: route[0] != "GET")

HEADERS = {"host": "127.0.0.1", "Authorization": f"Bearer {ADMIN_KEY}"}
FILE = {"file": b'{"prompt": "Who?", "completion": "I."}\n'}
FORM = "multipart/form-data"
RIGHT: dict[str, dict[str, Any]] = {
    "POST /jobs": {"body": RECIPE},
    "POST /plans": {"body": RECIPE},
    "POST /sweeps": {"body": {"recipe": RECIPE, "grid": {"seed": [1, 2]}}},
    "POST /jobs/{job_id}/exports": {"body": {"source": "checkpoint-1.tar"}},
    "POST /jobs/{job_id}/ratings": {"body": RATING},
    "POST /jobs/{job_id}/evaluations": {"body": {"dataset": "rows.jsonl"}},
    "POST /jobs/{job_id}/pushes": {"body": {"repo": "org/name", "secret": "tracker"}},
    "POST /datasets": {"body": FILE, "media_type": FORM},
    "GET /datasets/{dataset_id}/report": {"query": {"model": "tiny"}},
    "GET /datasets/{dataset_id}/preview": {"query": {"model": "tiny"}},
    "POST /webhooks": {"body": {"url": "https://example.com/"}},
    "PATCH /webhooks/{webhook_id}": {"body": {"enabled": False}},
    "POST /keys": {"body": {"owner": "anna"}},
    "PUT /secrets/{secret_name}": {"body": {"value": "a-token"}},
    "POST /session": {"body": {"key": ADMIN_KEY}},
    "PUT /quotas/{owner}": {"body": {"running_jobs": 1}},
    "POST /v1/files": {"body": {**FILE, "purpose": "fine-tune"}, "media_type": FORM},
    "POST /v1/chat/completions": {"body": {"model": "tiny", "messages": [{"role": "user", "content": "Hi?"}]}},
    "POST /v1/completions": {"body": {"model": "tiny", "prompt": "Hi"}},
    "POST /v1/fine_tuning/jobs": {"body": {"model": "tiny", "training_file": "rows.jsonl"}},
}
"""What a request has besides its path, where it has."""
PUSH = RIGHT["POST /jobs/{job_id}/pushes"]["body"]
JOBS = {"cancel": "running", "pause": "running", "resume": "paused", "retry": "failed"}
"""The job for the last part of a path; else the one that has succeeded."""

STAYS_ALIVE = timedelta(minutes=10)

few = examples(
    max_examples=2,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    write_model(home / "models" / "tiny")
    write_tokenizer(home / "models" / "tiny")
    write_dataset(home / "datasets" / "rows.jsonl")
    return home


@pytest.fixture(scope="module")
def services(home: Path, database_url: str, broker_url: str) -> Services:
    settings = ApiSettings(
        secret_key=SECRET_KEY,
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        home=home,
        require_keys=True,
        admin_key=SecretStr(ADMIN_KEY),
        rate_limit="1000000/second",
    )
    return make_services(settings, Pace())


@pytest.fixture(scope="module")
def schema(services: Services) -> Iterator[BaseSchema]:
    """Of one application for all routes, which schemathesis starts."""
    # The key is ours to send: a request without it is ignored_auth's.
    generation = {"with-security-parameters": False}
    # Text beyond a field's limit may make a body too large.
    refused = {"expected-statuses": ["400", "404", "409", "413", "415", "422", "429"]}
    config = schemathesis.Config.from_dict({"generation": generation, "checks": {"negative_data_rejection": refused}})
    application, local = assemble(services), {"host": "127.0.0.1"}
    yield schemathesis.openapi.from_asgi("/openapi.json", application, config=config, headers={**local, **HEADERS})
    shutdown_lifespans()


@pytest.fixture(scope="module")
def kept() -> dict[str, str]:
    """The things of the test before, unless it may have ended one."""
    return {}


@pytest.fixture(scope="module")
def server() -> Iterator[FakeInferenceServer]:
    with inference_server() as server:
        yield server


@pytest.fixture
def things(  # parameters: fixtures
    schema: BaseSchema,
    services: Services,
    home: Path,
    engine: sa.Engine,
    kept: dict[str, str],
    server: FakeInferenceServer,
    request: pytest.FixtureRequest,
    method: str,
    path: str,
) -> dict[str, str]:
    # Each route counts wrong keys by itself.
    services.rates.forget()
    if not kept:
        empty_database(engine)
        kept |= one_of_everything(schema, home, make_sessions(engine))
        with make_sessions(engine).begin() as session:
            server.add(session, "worker")
            session.flush()
            session.execute(sa.update(InferenceServer).values(seen_at=sa.func.now() + STAYS_ALIVE))
    things = dict(kept)
    drawn = request.node.get_closest_marker("exhaustive") is not None
    if method != "GET" and (drawn or not only_adds(method, path)):
        kept.clear()
    return things


def one_of_everything(schema: BaseSchema, home: Path, sessions: Sessions) -> dict[str, str]:
    """By its name in the paths; jobs by their status."""

    def post(path: str, **requested: Any) -> Any:
        answer = schema[path]["POST"].Case(**requested).call(headers=HEADERS)
        assert answer.status_code < 300, answer.text
        return answer.json()

    with sessions.begin() as session:
        paused = jobs.create(session, make_recipe(), "admin").id
        actions.pause(session, paused)
    succeeded, failed, running = (begun(sessions, home) for _ in range(3))
    failure = Failure(code=FailureCode.MODEL_UNSUPPORTED, message="model: cannot be loaded", param="model")
    with sessions.begin() as session:
        finish(session, succeeded, 1, AttemptEnd(JobStatus.SUCCEEDED, log_tail="said"), RETRIES)
        finish(session, failed, 1, AttemptEnd(JobStatus.FAILED, failure), RETRIES)
        jobs.create(session, make_recipe(), "admin")
        secrets.put(session, VAULT, "admin", "tracker", "a-token")
        session.execute(sa.update(Worker).values(seen_at=sa.func.now() + STAYS_ALIVE))
    publish(sessions, home)
    dataset_id = post("/datasets", body=FILE, media_type=FORM)["id"]
    webhook_id = post("/webhooks", body={"url": "http://127.0.0.1.nowhere.invalid/"})["id"]
    sweep_id = post("/sweeps", body={"recipe": RECIPE, "grid": {"seed": [1, 2]}})["id"]
    return {
        "job_id": succeeded,
        "failed": failed,
        "running": running,
        "paused": paused,
        "name": "adapter.tar",
        "path": "adapter_config.json",
        "model": f"ft:tiny:admin::{succeeded.removeprefix('job_')}",
        "dataset_id": dataset_id,
        "sweep_id": sweep_id,
        "file_id": dataset_id,
        "export_id": post("/jobs/{job_id}/exports", path_parameters={"job_id": succeeded}, body={})["id"],
        "rating_id": post("/jobs/{job_id}/ratings", path_parameters={"job_id": succeeded}, body=RATING)["id"],
        "evaluation_id": post(
            "/jobs/{job_id}/evaluations", path_parameters={"job_id": succeeded}, body={"dataset": "rows.jsonl"}
        )["id"],
        "push_id": post("/jobs/{job_id}/pushes", path_parameters={"job_id": succeeded}, body=PUSH)["id"],
        "webhook_id": webhook_id,
        "delivery_id": post("/webhooks/{webhook_id}/test", path_parameters={"webhook_id": webhook_id})["id"],
        "key_id": post("/keys", body={"owner": "bob"})["id"],
        "owner": "bob",
        "worker": "worker",
        "secret_name": "tracker",
    }


def begun(sessions: Sessions, home: Path) -> str:
    """A job whose trainer has written one event of each kind."""
    reported: list[events.Event] = [
        events.PhaseEvent(time=1.5, name="imports", seconds=2.5),
        events.StartedEvent(
            time=2.5,
            total_steps=2,
            train_examples=3,
            eval_examples=1,
            supervised_tokens=10,
            truncated_examples=0,
            dropped_examples=0,
            trainable_parameters=8,
            total_parameters=16,
            world_size=1,
            device="CPU",
            precision="fp32",
            versions={"torch": "2"},
        ),
        events.MetricEvent(
            time=3.5,
            step=1,
            epoch=0.5,
            loss=1.5,
            learning_rate=1e-3,
            grad_norm=None,
            tokens=20,
            supervised_tokens=5,
            tokens_per_second=9.5,
            memory_bytes=1000,
            progress=0.5,
            eta_seconds=1.5,
        ),
        events.EvaluationEvent(time=4.5, step=1, eval_loss=1.25, supervised_tokens=3, best=True),
        events.SampleEvent(time=5.5, step=1, index=0, prompt="Who?", expected="I.", generated="We."),
        events.CheckpointEvent(time=6.5, step=1, path="step-1", bytes=2, eval_loss=1.25),
        events.LogEvent(time=7.5, level="warning", message="slow"),
        events.CheckpointEvent(time=8.5, step=2, path="adapter", bytes=2, final=True),
        events.DoneEvent(time=9.5, step=2, completed=True, best_step=1, train_loss=1.5, eval_loss=1.25),
    ]
    with sessions.begin() as session:
        jobs.create(session, make_recipe(), "admin")
        job = claim(session)
        assert job is not None
        progress.record(session, job.id, 1, reported, LEASE)
    for name in ("step-1", "adapter"):
        folder = home / "runs" / job.id / "attempt-1" / name
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
    return job.id


def only_adds(method: str, path: str) -> bool:
    """Whether a route ends nothing that is there: it changes nothing, or it has a body."""
    return method == "GET" or f"{method} {path}" in RIGHT


def marked(route: tuple[str, str]) -> Any:
    """The exhaustive ones: routes that change something and have no body. They want one of everything each, and have
    little that may be wrong."""
    return pytest.param(*route, marks=() if only_adds(*route) else pytest.mark.exhaustive)


def test_schema_patterns_mean_the_same_in_json_schema() -> None:
    r"""For whom \w has every letter there is, and \d the digits of all scripts."""
    patterns = re.findall(r'"pattern": (".*?(?<!\\)")', json.dumps(description()))
    assert len(patterns) > 10
    assert [each for each in map(json.loads, patterns) if re.search(r"\\[wdsb]", each)] == []


@pytest.mark.parametrize(("method", "path"), [marked(route) for route in ROUTES], ids=lambda word: word)
def test_route_keeps_to_its_description(schema: BaseSchema, things: dict[str, str], method: str, path: str) -> None:
    check_route(schema[path][method], things, every_case=False)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda word: word)
def test_route_keeps_to_its_description_in_every_case(
    schema: BaseSchema, things: dict[str, str], method: str, path: str
) -> None:
    check_route(schema[path][method], things, every_case=True)


def check_route(operation: APIOperation[Any, Any, Any, Any], things: dict[str, str], every_case: bool) -> None:
    job = things.get(JOBS.get(operation.path.rpartition("/")[2], ""), things["job_id"])
    named = {each.name: ({**things, "job_id": job})[each.name] for each in operation.path_parameters}
    right = operation.Case(path_parameters=named, **RIGHT.get(operation.label, {}))
    answer = right.call_and_validate(headers=HEADERS)
    assert answer.status_code < 300, answer.text

    # That it wants a key has been seen.
    excluded = [ignored_auth]
    if operation.label in RIGHT or {"after", "idempotency-key"} & {each.name for each in operation.iter_parameters()}:
        excluded.append(positive_data_acceptance)

    def check(case: Case[Any]) -> None:
        case.call_and_validate(headers=HEADERS, excluded_checks=excluded)

    for case in coverage(operation, named, every_case):
        check(case)
    if not every_case:
        return
    nothing_to_get_wrong = not operation.body and not list(operation.iter_parameters())
    for mode in [GenerationMode.POSITIVE] if nothing_to_get_wrong else GenerationMode:
        for pinned in (named, {}):
            few(given(case=operation.as_strategy(mode, path_parameters=pinned))(check))()


def coverage(
    operation: APIOperation[Any, Any, Any, Any], named: dict[str, str], every_case: bool
) -> Iterator[Case[Any]]:
    """Of the things that are there, but where the path is what is wrong."""
    generator = CoverageGenerator(
        operation=operation,
        generation_modes=list(GenerationMode),
        generation_config=operation.schema.config.generation_for(operation=operation, phase="coverage"),
        auth_storage=None,
        override=Override(),
        feedback=FeedbackSources(),
    )
    seen = set()
    for case in generator:
        assert case.meta is not None
        about = case.meta.phase.data
        assert isinstance(about, CoveragePhaseData)
        kind = (about.scenario, about.parameter_location, case.method, case.media_type)
        if kind in seen and not every_case:
            continue
        seen.add(kind)
        if about.parameter_location != ParameterLocation.PATH:
            Override(path_parameters=named).apply_to(case)
            case._record_starting_state()
        yield case
