"""Puts the API together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from api import errors, request_id
from api.origin import refuse_foreign
from api.routes import artifacts, events, health, jobs, metrics, samples, workers
from api.settings import ApiSettings
from store.broker import make_publisher
from store.session import make_engine, make_sessions


def create_app(settings: ApiSettings) -> FastAPI:
    engine = make_engine(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        engine.dispose()

    app = FastAPI(
        title="finetuned",
        summary="Fine-tuning jobs on your own GPUs",
        lifespan=lifespan,
        dependencies=[Depends(refuse_foreign)],
    )
    app.state.settings = settings
    app.state.sessions = make_sessions(engine)
    app.state.broker = make_publisher(settings)
    for noun in (jobs, metrics, events, samples, artifacts, workers, health):
        app.include_router(noun.router)
    errors.install(app)
    app.add_middleware(request_id.RequestId)
    return app
