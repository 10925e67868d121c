"""Whether the service works, for load balancers, Prometheus and generated clients."""

import logging
import time
from datetime import timedelta
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from kombu.exceptions import OperationalError
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.auth.who import Admin, Who
from api.context import Context
from api.errors import NotReady
from runtime import broker
from store.scheduling import workers

log = logging.getLogger(__name__)

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"]


@router.get("/health")
def get_health(services: Context) -> Health:
    """Whether the service can take jobs: its database answers."""
    with services.sessions.begin() as session:
        session.execute(text("SELECT 1"))
    return Health(status="ok")


@router.get("/health/live")
async def get_liveness() -> Health:
    """Whether this process answers. Restart one that does not."""
    return Health(status="ok")


@router.get("/health/ready")
def get_readiness(services: Context) -> Health:
    """Whether jobs would run: database, broker and a worker are there. 503 names what is missing."""
    missing = []
    try:
        with services.sessions.begin() as session:
            # An earlier heartbeat may be that of a worker which ended with the API before this one.
            if not workers.any_takes_jobs(session, timedelta(seconds=time.monotonic() - services.started)):
                missing.append("worker: none is there that takes jobs")
    except SQLAlchemyError as error:
        log.warning("not ready, the database is away: %s", error)
        missing.append("database: it does not answer")
    try:
        broker.ping(services.publisher)
    except OperationalError as error:
        log.warning("not ready, the broker is away: %s", error)
        missing.append("broker: it does not answer")
    if missing:
        raise NotReady("; ".join(missing))
    return Health(status="ok")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_service_metrics(services: Context, who: Admin) -> Response:
    """The service's metrics, for Prometheus. Where keys are required, an admin's."""
    return Response(services.telemetry.exposition(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.get("/openapi.json", include_in_schema=False)
async def get_openapi(request: Request, who: Who) -> dict[str, Any]:
    """The API's description of itself."""
    return request.app.openapi()  # type: ignore[no-any-return]
