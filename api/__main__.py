"""`python -m api`: serves until it is told to stop."""

import uvicorn

from api.app import create_app
from api.settings import ApiSettings
from store.settings import read_settings


def main() -> None:
    settings = read_settings(ApiSettings)
    # Open event streams end with the process: a client resumes by its Last-Event-ID.
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()
