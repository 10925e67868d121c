"""The workers, and what runs on their devices."""

from fastapi import APIRouter

from api.auth.who import Who
from api.context import Context
from api.schemas.workers import WorkerList, worker_out
from store.jobs import jobs
from store.scheduling import workers
from store.session import read_snapshot

router = APIRouter(tags=["workers"])


@router.get("/workers")
def list_workers(services: Context, who: Who) -> WorkerList:
    """The workers, and what runs on each device of their machines or why nothing may."""
    with read_snapshot(services.sessions) as session:
        devices, leases = workers.devices(session), workers.leases(session)
        found = workers.known(session)
        named = {lease.job_id for lease in leases}
        own = named if who.admin else jobs.owned(session, named, who.owner)
        return WorkerList(data=[worker_out(worker, alive, devices, leases, own) for worker, alive in found])
