"""The workers, and what runs on their devices."""

from api.schemas.workers import WorkerList, worker_out
from api.services.moment import one_moment
from store.access.principal import Principal
from store.jobs import jobs
from store.scheduling import workers
from store.session import Sessions


def all_workers(sessions: Sessions, who: Principal) -> WorkerList:
    with one_moment(sessions) as session:
        devices, taken = workers.devices(session), workers.leases(session)
        known = workers.known(session)
        named = {lease.job_id for lease in taken}
        own = named if who.admin else jobs.owned(session, named, who.owner)
        return WorkerList(data=[worker_out(worker, alive, devices, taken, own) for worker, alive in known])
