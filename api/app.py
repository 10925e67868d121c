"""Puts the API together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from operator import attrgetter

from anyio import create_task_group
from fastapi import APIRouter, Depends, FastAPI

from api import (
    artifacts,
    audit,
    clean,
    errors,
    events,
    exports,
    health,
    held_out,
    keys,
    memory,
    metrics,
    page,
    plans,
    quotas,
    ratings,
    secrets,
    sign_in,
    workers,
)
from api.auth.key_check import KeyCheck
from api.auth.keyring import Keyring
from api.auth.origin import refuse_foreign
from api.auth.rates import Rates
from api.background.checks import Checks
from api.background.job_table import JobTable
from api.background.live import Live, Pace
from api.background.open_requests import OpenRequests
from api.background.webhook_sender import Sender, SenderPace
from api.context import Services, State
from api.datasets import routes as datasets
from api.datasets.reader import RowReader
from api.evaluations import routes as evaluations
from api.http import request_id
from api.http.repeated import refuse_repeated
from api.http.request_log import RequestLog
from api.http.request_trace import RequestTrace
from api.http.telemetry import Telemetry
from api.http.unread import CloseUnread
from api.jobs import routes as jobs
from api.model_folders import ModelFolders
from api.openai import routes as openai
from api.pushes import routes as pushes
from api.pushes.pusher import Pusher, PusherPace
from api.settings import ApiSettings
from api.sweeps import routes as sweeps
from api.tags import TAGS
from api.tracking.follower import Follower, FollowerPace
from api.webhooks import routes as webhooks
from dataset.sandbox.child import DatasetSandbox
from runtime import tracing
from runtime.broker import make_publisher
from storage.backends import make_storage
from store.access.vault import Vault
from store.session import make_engine, make_sessions

_NOUNS = (
    jobs,
    sweeps,
    metrics,
    plans,
    events,
    exports,
    evaluations,
    pushes,
    artifacts,
    held_out,
    ratings,
    datasets,
    webhooks,
    workers,
    memory,
    keys,
    quotas,
    secrets,
    clean,
    audit,
    health,
    openai,
    page,
    sign_in,
)

# FastAPI analyses the routes of an included router at their first request, once for each include_router. Applications
# that share these routes share that work: tests make hundreds of applications in one process.
_ROUTES = APIRouter(
    dependencies=[Depends(refuse_repeated), Depends(refuse_foreign)],
    responses=errors.DESCRIBED,
    # Else the names of a generated client's methods would repeat each path.
    generate_unique_id_function=attrgetter("name"),
)
for _noun in _NOUNS:
    _ROUTES.include_router(_noun.router)


def create_app(  # parameters: settings and paces
    settings: ApiSettings,
    pace: Pace = Pace(),  # noqa: B008
    sender: SenderPace = SenderPace(),  # noqa: B008
    following: FollowerPace = FollowerPace(),  # noqa: B008
    pushing: PusherPace = PusherPace(),  # noqa: B008
) -> FastAPI:
    return assemble(make_services(settings, pace), sender, following, pushing)


def make_services(settings: ApiSettings, pace: Pace) -> Services:
    sessions, storage, sandbox = make_sessions(make_engine(settings)), make_storage(settings), DatasetSandbox()
    services = Services(
        settings=settings,
        sessions=sessions,
        vault=Vault(settings.secret_key.get_secret_value()),
        publisher=make_publisher(settings),
        storage=storage,
        sandbox=sandbox,
        models=ModelFolders(settings.folders),
        reader=RowReader(sandbox, settings.largest_dataset, settings.lengths),
        # It has a sandbox of its own: a large check delays no preview.
        checks=Checks(sessions, settings, storage, DatasetSandbox()),
        keyring=Keyring(sessions, settings.admin_key.get_secret_value() if settings.admin_key else None),
        rates=Rates(settings.rate_limit),
        requests=OpenRequests(sessions),
        telemetry=Telemetry(sessions, settings.home, lambda: services.live.clients + services.job_table.clients),
        live=Live(sessions, pace),
        job_table=JobTable(sessions),
        web=page.FOLDER,
    )
    return services


def _restarted(services: Services) -> Services:
    """With new parts in place of those that start and stop with a lifespan, as an application may have several."""
    settings, sandbox = services.settings, DatasetSandbox()
    return replace(
        services,
        sandbox=sandbox,
        reader=RowReader(sandbox, settings.largest_dataset, settings.lengths),
        checks=Checks(services.sessions, settings, services.storage, DatasetSandbox()),
        live=services.live.restarted(),
        job_table=services.job_table.restarted(),
    )


def assemble(
    services: Services,
    pace: SenderPace = SenderPace(),  # noqa: B008
    following: FollowerPace = FollowerPace(),  # noqa: B008
    pushing: PusherPace = PusherPace(),  # noqa: B008
) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        running = _restarted(services)
        services.live, services.job_table = running.live, running.job_table  # for the telemetry
        running.checks.start()
        # anyio's: what is cancelled here still waits for its threads, which have connections of the engine.
        async with create_task_group() as tasks:
            tasks.start_soon(running.live.run)
            tasks.start_soon(running.job_table.run)
            tasks.start_soon(running.requests.run)
            tasks.start_soon(Follower(running.sessions, running.vault, running.settings, following).run)
            allow_private = running.settings.webhook_allow_private
            tasks.start_soon(Sender(running.sessions, running.vault, allow_private, pace).run)
            tasks.start_soon(Pusher(running.sessions, running.vault, running.storage, running.settings, pushing).run)
            yield {"services": running}
            tasks.cancel_scope.cancel()
        running.sandbox.stop()
        running.checks.stop()
        running.sessions.kw["bind"].dispose()

    app = FastAPI(
        title="finetuned",
        summary="Fine-tuning jobs on your own GPUs",
        lifespan=lifespan,
        routes=_ROUTES.routes,
        # The page of /docs would load scripts of another host. api/health.py hands out the description.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        openapi_tags=TAGS,
    )
    errors.install(app)
    app.add_middleware(KeyCheck, keyring=services.keyring)
    app.add_middleware(RequestLog, telemetry=services.telemetry)
    if tracing.is_on():
        app.add_middleware(RequestTrace)
    app.add_middleware(request_id.RequestId)
    app.add_middleware(CloseUnread)
    return app
