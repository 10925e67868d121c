"""Tells what a recipe will take before anybody pays for it."""

from api.idempotency import Settle, once_by_key, unsettled, with_body
from api.schemas.plans import PlanOut, plan_out
from api.services.fit import base_of, lengths_of
from api.services.jobs import check
from api.settings import ApiSettings
from contract.machine import check_machines, unwise
from contract.order import workload
from contract.recipe_errors import read_recipe
from contract.shortfalls import shortfalls
from dataset.sandbox import DatasetSandbox
from estimate.plan import make_plan
from storage.backends import Storage
from store.access.idempotent_requests import Asked
from store.access.principal import Principal
from store.jobs import jobs
from store.jobs.throughput import throughput
from store.scheduling import workers
from store.session import Sessions


def plan(
    sessions: Sessions,
    settings: ApiSettings,
    storage: Storage,
    sandbox: DatasetSandbox,
    who: Principal,
    asked: Asked,
    body: bytes,
) -> PlanOut:
    """As things are now, also where it is sent again. Raises InputError, for what POST /jobs would refuse but for what
    does not fit; RequestReused, StillAtWork."""
    recipe = read_recipe(body)

    def make(settle: Settle) -> PlanOut:
        with sessions.begin() as session:
            machines = workers.machines(session)
        check_machines(recipe, machines)
        checked = check(sessions, settings, storage, sandbox, who, recipe)
        planned, rows = checked.recipe, checked.rows
        base = base_of(sessions, settings, who, planned)
        made = make_plan(planned, rows, machines, base, lengths_of(sessions, settings, sandbox, planned, rows))
        with sessions.begin() as session:
            expected = jobs.expected_seconds(session, planned, workload(planned, rows).examples)
            speeds = [throughput(session, planned, on.device, on.place.precision) for on in made.devices]
            settle(session, "plan")
        warnings = [*unwise(planned, machines), *shortfalls(planned, rows)]
        return plan_out(made, None if isinstance(base, str) else base, speeds, expected, warnings)

    return once_by_key(sessions, with_body(asked, body), make, lambda _: make(unsettled))
