"""Puts the API together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import create_task_group
from fastapi import Depends, FastAPI

from api import errors, request_id
from api.checks import Checks
from api.key_check import KeyCheck
from api.keyring import Keyring
from api.live import Live, Pace
from api.origin import refuse_foreign
from api.rates import Rates
from api.repeated import refuse_repeated
from api.request_log import RequestLog
from api.routes import (
    artifacts,
    audit,
    datasets,
    events,
    exports,
    health,
    jobs,
    keys,
    metrics,
    plans,
    quotas,
    samples,
    schema,
    webhooks,
    workers,
)
from api.settings import ApiSettings
from api.telemetry import Telemetry
from api.unread import CloseUnread
from api.v1.routes import files, fine_tuning
from api.v1.routes import models as openai_models
from api.webhook_sender import Sender
from dataset.sandbox import DatasetSandbox
from runtime.broker import make_publisher
from storage.backends import make_storage
from store.session import make_engine, make_sessions


def create_app(settings: ApiSettings, pace: Pace = Pace()) -> FastAPI:  # noqa: B008
    engine = make_engine(settings)
    sessions = make_sessions(engine)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        app.state.live = Live(sessions, pace)
        sender = Sender(sessions, settings.webhook_allow_private)
        sandbox = DatasetSandbox()
        # A sandbox of its own: a large check keeps no preview waiting.
        checks = Checks(sessions, settings, app.state.storage, DatasetSandbox())
        checks.start()
        # anyio's: what is cancelled here still waits for its threads, which have connections of the engine.
        async with create_task_group() as tasks:
            tasks.start_soon(app.state.live.run)
            tasks.start_soon(sender.run)
            yield {"sandbox": sandbox, "checks": checks}
            tasks.cancel_scope.cancel()
        sandbox.stop()
        checks.stop()
        engine.dispose()

    app = FastAPI(
        title="finetuned",
        summary="Fine-tuning jobs on your own GPUs",
        lifespan=lifespan,
        dependencies=[Depends(refuse_repeated), Depends(refuse_foreign)],
        # The page of /docs would load scripts of another host. api/routes/schema.py hands out the description.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        responses=errors.DESCRIBED,
    )
    app.state.settings = settings
    app.state.sessions = sessions
    app.state.telemetry = Telemetry(sessions, lambda: app.state.live.clients)
    app.state.broker = make_publisher(settings)
    app.state.storage = make_storage(settings)
    admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
    app.state.keyring = Keyring(app.state.sessions, admin_key)
    app.state.rates = Rates(settings.rate_limit)
    for noun in (
        jobs,
        metrics,
        plans,
        events,
        exports,
        samples,
        artifacts,
        datasets,
        webhooks,
        workers,
        keys,
        quotas,
        audit,
        health,
        schema,
        files,
        fine_tuning,
        openai_models,
    ):
        app.include_router(noun.router)
    errors.install(app)
    app.add_middleware(KeyCheck, keyring=app.state.keyring)
    app.add_middleware(RequestLog, telemetry=app.state.telemetry)
    app.add_middleware(request_id.RequestId)
    app.add_middleware(CloseUnread)
    return app
