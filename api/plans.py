"""Plans: what a recipe takes, before anybody pays for it."""

from typing import Annotated

from fastapi import APIRouter, Depends

from api.auth.who import Who
from api.context import Context, Services
from api.http.body import described, read_body
from api.http.idempotency import Keyed, idempotent
from api.jobs.submission import lengths_of, resolved
from api.schemas.plans import PlanOut, plan_out
from contract.recipe import Recipe
from contract.recipe_errors import read_recipe
from estimate.plan import make_plan
from store.access.principal import Principal
from store.jobs import jobs
from store.jobs.throughput import throughput
from store.scheduling import workers

router = APIRouter(tags=["plans"])


@router.post("/plans", openapi_extra=described(Recipe))
def create_plan(services: Context, who: Who, asked: Keyed, body: Annotated[bytes, Depends(read_body)]) -> PlanOut:
    """What a recipe would take, without training it: parameters, steps, tokens, memory on each kind of device and what
    would make it fit, disk, and time. What cannot be known is null, and `unknown` says why."""
    recipe = read_recipe(body)
    with idempotent(services, asked) as turn:
        planned = plan(services, who, recipe)
        with services.sessions.begin() as session:
            turn.complete(session, "plan")
        return planned


def plan(services: Services, who: Principal, recipe: Recipe) -> PlanOut:
    """Raises InputError for what POST /jobs refuses, except that it does not fit."""
    with services.sessions.begin() as session:
        machines = workers.machines(session)
    with resolved(services, who, recipe, machines) as submission:
        base, rows = submission.base, submission.training.count
        made = make_plan(submission.recipe, rows, submission.machines, base, lengths_of(services, submission))
        with services.sessions.begin() as session:
            expected = jobs.expected_seconds(session, submission.recipe, submission.workload.examples)
            speeds = [throughput(session, submission.recipe, on.device, on.place.precision) for on in made.devices]
        return plan_out(made, None if isinstance(base, str) else base, speeds, expected, submission.warnings)
