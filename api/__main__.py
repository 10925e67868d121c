"""`python -m api`: serves until it is told to stop."""

import uvicorn

from api.app import create_app
from api.settings import ApiSettings


def main() -> None:
    settings = ApiSettings()  # type: ignore[call-arg]  # the environment gives what is required
    # Open event streams end with the process: a client resumes by its Last-Event-ID.
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()
