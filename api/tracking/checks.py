"""Checks what a recipe says of trackers."""

from urllib.parse import urlsplit

from api.context import Services
from api.tracking.wandb import is_installed
from api.webhooks.public_address import Forbidden, check_url
from contract.failure import FailureCode, InputError
from contract.formatting import format_value
from contract.tracking import Tracking
from store.access import secrets
from store.access.principal import Principal


def check_tracking(services: Services, who: Principal, tracking: Tracking) -> None:
    """Raises InputError for an address that may not be reached, and for a secret that is not stored."""
    if tracking.mlflow is not None:
        _check_address(services, tracking.mlflow.url)
    if tracking.wandb is not None and not is_installed():
        raise _refused("tracking.wandb", "this server lacks the package wandb, which its operator may install")
    named = {f"tracking.{name}.secret": place.secret for name, place in tracking.places.items() if place.secret}
    if not named:
        return
    with services.sessions.begin() as session:
        missing = secrets.missing(session, who.owner, set(named.values()))
    for param, secret in named.items():
        if secret in missing:
            store = f"PUT /secrets/{secret}, or `finetuned secrets set {secret}`"
            raise _refused(param, f"{who.owner} has no secret {format_value(secret)}; store it with {store}")


def _check_address(services: Services, url: str) -> None:
    param = "tracking.mlflow.url"
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        # Without the URL: it contains a password.
        raise _refused(param, "it has a user or a password in it; give username and secret instead")
    if parts.query or parts.fragment:
        raise _refused(param, f"got {format_value(url)}; leave out what follows the path")
    try:
        check_url(url, services.settings.webhook_allow_private)
    except (ValueError, Forbidden) as error:
        raise _refused(param, f"got {format_value(url)}; {error}") from error


def _refused(param: str, message: str) -> InputError:
    return InputError(FailureCode.RECIPE_INVALID, f"{param}: {message}", param)
