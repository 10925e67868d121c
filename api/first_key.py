"""`python -m api.first_key`: makes the service's first admin key and prints its secret. A second time it refuses."""

import sys

from sqlalchemy import text

from api.settings import ApiSettings
from runtime.settings import read_settings
from store.access import audit, keys
from store.access.principal import Principal
from store.session import make_engine, make_sessions

OWNER = "admin"


def main() -> None:
    engine = make_engine(read_settings(ApiSettings))
    with make_sessions(engine).begin() as session:
        session.execute(text("LOCK TABLE keys IN SHARE ROW EXCLUSIVE MODE"))  # of two that start at once, one refuses
        if keys.any_admin(session):
            sys.exit("there is an admin key; make others with it: finetuned keys create --owner NAME --admin")
        key, secret = keys.create(session, OWNER, "first", admin=True)
        audit.record(
            session,
            Principal(OWNER, admin=True, key_id=None, request_id="api.first_key"),
            "key.create",
            key.id,
            owner=OWNER,
            admin=True,
        )
    engine.dispose()
    sys.stdout.write(f"{secret}\n")


if __name__ == "__main__":
    main()
