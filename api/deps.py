"""What routes ask for."""

from typing import Annotated

from celery import Celery
from fastapi import Depends, Request

from api.settings import ApiSettings
from store.session import Sessions

LONGEST_RECIPE = 1_000_000  # bytes


def _settings(request: Request) -> ApiSettings:
    settings: ApiSettings = request.app.state.settings
    return settings


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def _broker(request: Request) -> Celery:
    return request.app.state.broker


Settings = Annotated[ApiSettings, Depends(_settings)]
Db = Annotated[Sessions, Depends(_sessions)]
Broker = Annotated[Celery, Depends(_broker)]
