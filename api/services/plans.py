"""Tells what a recipe will take before anybody pays for it."""

from api.schemas.plans import PlanOut, plan_out
from api.services.fit import base_of, lengths_of
from api.services.jobs import check
from api.settings import ApiSettings
from api.work import examples_to_train
from contract.machine import check_machines
from contract.recipe_errors import read_recipe
from dataset.child import Children
from estimate.plan import make_plan
from store import jobs, workers
from store.principal import Principal
from store.session import Sessions
from store.storage import Storage
from store.throughput import throughput


def plan(
    sessions: Sessions, settings: ApiSettings, storage: Storage, children: Children, who: Principal, body: bytes
) -> PlanOut:
    """Raises InputError, for what POST /jobs would refuse but for what does not fit."""
    recipe = read_recipe(body)
    with sessions.begin() as session:
        machines = workers.machines(session)
    check_machines(recipe, machines)
    checked = check(sessions, settings, storage, children, who, recipe)
    recipe, rows = checked.recipe, checked.rows
    base = base_of(sessions, settings, who, recipe)
    made = make_plan(recipe, rows, machines, base, lengths_of(sessions, settings, children, recipe, rows))
    with sessions.begin() as session:
        expected = jobs.expected_seconds(session, recipe, examples_to_train(recipe, rows))
        speeds = [throughput(session, recipe, on.device, on.place.precision) for on in made.devices]
    return plan_out(made, None if isinstance(base, str) else base, speeds, expected)
