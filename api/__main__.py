"""`python -m api`: serves until a signal stops it."""

import gc
import logging
import sys

from sqlalchemy.exc import OperationalError

from api.http.server import bounds_of, serve
from api.settings import USUAL_PORT, ApiSettings, is_loopback
from runtime import logs, tracing
from runtime.private_files import keep_private
from runtime.settings import read_settings
from store import schema
from store.access import keys
from store.session import make_engine, make_sessions

_SWITCH_SECONDS = 0.0005
"""How long a thread keeps the interpreter lock. A thread needs the lock again after each round trip to the database,
and with Python's 0.005 waits that long each time while the event loop is busy: the slowest hundredth of 200 polling
clients waited eight times as long. benchmarks/api_load.py guards it."""

_MIGRATION_SECONDS = 60.0


def main() -> None:
    settings = read_settings(ApiSettings)
    keep_private(settings.home)
    logs.configure(settings)
    tracing.start("finetuned-api")
    _refuse_another_schema(settings)
    _refuse_without_keys(settings)
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Building the routes takes longer than all checks above, whose refusal need not wait for it. What it creates stays:
    # no search for garbage looks at it, now or later.
    gc.disable()
    from api.app import create_app

    gc.freeze()
    gc.enable()
    try:
        serve(create_app(settings), settings, bounds_of(settings))
    finally:
        tracing.stop()


def _refuse_another_schema(settings: ApiSettings) -> None:
    """Exits with 1 on a database of another version. One that is being migrated is waited for: `finetuned up` starts
    both at once."""
    engine = make_engine(settings)
    try:
        if (problem := schema.refusal(engine, _MIGRATION_SECONDS)) is not None:
            sys.exit(problem)
    except OperationalError as error:
        logging.getLogger(__name__).warning("the schema is not compared, the database is unavailable: %s", error)
    finally:
        engine.dispose()


def _refuse_without_keys(settings: ApiSettings) -> None:
    """Exits with 1 if others could reach an API for which nobody can have a key."""
    if is_loopback(settings.host) or settings.admin_key is not None:
        return
    engine = make_engine(settings)
    try:
        with make_sessions(engine).begin() as session:
            there = keys.any_active(session)
    except OperationalError:  # away; when it is back every request wants a key of it
        return
    finally:
        engine.dispose()
    if not there:
        at = "" if settings.port == USUAL_PORT else f" --url http://127.0.0.1:{settings.port}"
        sys.exit(
            f"FINETUNED_HOST is {settings.host}, by which others than this machine reach the API, and there is no key: "
            "set FINETUNED_ADMIN_KEY (`openssl rand -hex 24` makes one), or make a key while it listens on 127.0.0.1 "
            f"with: finetuned keys create --owner NAME --admin{at}"
        )


if __name__ == "__main__":
    main()
