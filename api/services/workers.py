"""The workers, and what runs on their devices."""

from api.schemas.workers import WorkerList, worker_out
from api.services.moment import one_moment
from store import workers
from store.session import Sessions


def all_workers(sessions: Sessions) -> WorkerList:
    with one_moment(sessions) as session:
        devices, taken = workers.devices(session), workers.leases(session)
        known = workers.known(session)
        return WorkerList(data=[worker_out(worker, alive, devices, taken) for worker, alive in known])
