from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from api.deps import Broker, Db
from api.schemas.health import Health
from api.services import health as service
from api.telemetry import Telemetry
from api.who import Admin

router = APIRouter(tags=["health"])


@router.get("/health")
def get_health(db: Db) -> Health:
    """Whether the service can take jobs: its database answers."""
    return service.health(db)


@router.get("/health/live")
async def get_liveness() -> Health:
    """Whether this process answers. One that does not is to be started anew."""
    return Health(status="ok")


@router.get("/health/ready")
def get_readiness(db: Db, broker: Broker) -> Health:
    """Whether jobs would run: database, broker and a worker are there. 503 names what is missing."""
    return service.ready(db, broker)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_service_metrics(request: Request, who: Admin) -> Response:
    """The service's numbers, for Prometheus. Where keys are wanted, an admin's."""
    telemetry: Telemetry = request.app.state.telemetry
    return Response(telemetry.exposition(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
