"""Every route, against what the API's own description says of it: schemathesis, with all of its checks."""

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from pydantic import SecretStr
from schemathesis import Case
from schemathesis.specs.openapi.checks import positive_data_acceptance

from api.app import create_app
from api.settings import ApiSettings
from store.session import Sessions
from tests.api.conftest import ADMIN, make, serve
from tests.placing import register

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

nowhere = SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none")
app = create_app(ApiSettings(database_url=nowhere, broker_url=SecretStr("redis://127.0.0.1:1"), home=Path("/none")))
paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
routes = [(method.upper(), path) for path, methods in paths.items() for method in methods]

few = examples(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(("method", "path"), routes, ids=lambda word: word)
def test_a_route_keeps_to_its_description(settings: ApiSettings, sessions: Sessions, method: str, path: str) -> None:
    keyed = settings.model_copy(update={"require_keys": True, "admin_key": SecretStr(ADMIN)})
    with sessions.begin() as session:
        register(session, slots=1)  # Without a worker the service is not ready: an error of the server, and said so.
    with serve(keyed) as client:
        secret = make(client, owner="boss", admin=True)["secret"]
    # Not the client's: schemathesis starts and ends the application by itself, at each of its calls.
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(keyed), headers={"host": "127.0.0.1"})
    headers = {"host": "127.0.0.1", "Authorization": f"Bearer {secret}"}
    # What is well-formed may still name a model or a file that is not there, or fields that do not go together.
    excluded = [positive_data_acceptance] if method in ("POST", "PATCH") else []

    @few
    @given(case=schema[path][method].as_strategy())
    def check(case: Case) -> None:
        case.call_and_validate(headers=headers, excluded_checks=excluded)

    check()
