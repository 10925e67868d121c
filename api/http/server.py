"""The HTTP server: uvicorn, with bounds on what a client may take."""

import uvicorn
from starlette.types import ASGIApp

from api.http.bounds import Bounds, connection_limit
from api.http.connection import bounded
from api.settings import ApiSettings


def bounds_of(settings: ApiSettings) -> Bounds:
    fitting = connection_limit()
    most = fitting if settings.connections is None else min(settings.connections, fitting)
    if settings.connections_per_address is None:
        exempt = (*Bounds.exempt, *settings.trusted_proxies)
        return Bounds(connections=most, per_address=min(Bounds.per_address, max(1, most // 4)), exempt=exempt)
    return Bounds(connections=most, per_address=settings.connections_per_address, exempt=settings.trusted_proxies)


def serve(app: ASGIApp, settings: ApiSettings, bounds: Bounds) -> None:
    """Runs until a signal stops the process. Open event streams end with it: a client resumes by its Last-Event-ID."""
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        http=bounded(bounds),
        ws="none",
        # uvicorn itself would believe X-Forwarded-For of whatever comes from this machine.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_keep_alive=bounds.idle_seconds,
        timeout_graceful_shutdown=3,
        log_config=None,
        access_log=False,  # api/http/request_log.py writes it
    )
