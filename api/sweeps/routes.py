from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from api.auth.owner import Owner
from api.auth.who import Who
from api.context import Context
from api.http.body import described, json_body
from api.http.idempotency import Keyed, Once, idempotent
from api.http.ids import JobId, SweepId
from api.http.json_response import json_response
from api.sweeps import service
from api.sweeps.expansion import MOST_RUNS
from api.sweeps.schemas import NewSweep, SweepOut, SweepPage

router = APIRouter(tags=["sweeps"])


@router.post("/sweeps", status_code=HTTPStatus.CREATED, response_model=SweepOut, openapi_extra=described(NewSweep))
def create_sweep(
    services: Context,
    who: Who,
    once: Once,
    new: Annotated[NewSweep, Depends(json_body(NewSweep))],
    force: bool = False,
) -> Response:
    """Creates a job for each point of a grid, or each entry of a list: all of them, or none where one recipe is
    refused. An error names the value at fault, such as grid.adapter.r[1]. `force` accepts recipes that cannot fit into
    memory. Sent again with the same Idempotency-Key, it answers with the sweep that was made first."""
    with idempotent(services, once) as turn:
        made = turn.made or service.create_sweep(services, who, turn, new, force)
    return json_response(service.get_sweep(services, who, made), HTTPStatus.CREATED)


@router.get("/sweeps", response_model=SweepPage)
def list_sweeps(
    services: Context,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: SweepId | None = None,
    owner: Owner | None = None,
) -> Response:
    """Newest first, each with its jobs. `owner` is for admins, who see the sweeps of all owners."""
    found = service.list_sweeps(services, who, limit, after, owner)
    return json_response(SweepPage(data=list(found.rows), has_more=found.has_more))


@router.get("/sweeps/{sweep_id}", response_model=SweepOut)
def get_sweep(services: Context, who: Who, sweep_id: SweepId) -> Response:
    """A sweep with the latest results of its jobs."""
    return json_response(service.get_sweep(services, who, sweep_id))


@router.post("/sweeps/{sweep_id}/cancel", response_model=SweepOut)
def cancel_sweep(
    services: Context,
    who: Who,
    once: Keyed,
    sweep_id: SweepId,
    keep: Annotated[list[JobId], Query(max_length=MOST_RUNS)] = [],  # noqa: B006  # FastAPI copies it
) -> Response:
    """Ends the jobs of a sweep that have not ended, without those to `keep`. A running job saves first, and is
    `cancelled` when all its processes are gone. Jobs that have ended stay as they are."""
    service.cancel_sweep(services, who, once, sweep_id, keep)
    return get_sweep(services, who, sweep_id)
