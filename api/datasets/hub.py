"""Downloads one file of a hub's data set. HF_ENDPOINT names the hub. The operator's token is not sent: what is private
to the operator is not for the users."""

import httpx

from api.datasets.upload import Incoming
from contract.failure import FailureCode, InputError
from contract.formatting import truncate

_SECONDS = 30.0  # for the next bytes
_MOST_REDIRECTS = 5


def download(name: str, file: str, revision: str | None, token: str | None, into: Incoming) -> None:
    """`token` is the owner's. Raises InputError if the hub refuses, TooLarge."""
    # Its import takes a while, and few requests need it.
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(name, file, repo_type="dataset", revision=revision)
    # As it is kept: what is counted and hashed is what is there.
    headers = {"accept-encoding": "identity"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"  # httpx sends it to no other host that the hub redirects to
    try:
        with (
            httpx.Client(timeout=_SECONDS, follow_redirects=True, max_redirects=_MOST_REDIRECTS) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if not answer.is_success:
                raise _refused(name, file, f"the hub answers {answer.status_code} {answer.reason_phrase}")
            for piece in answer.iter_raw(1 << 20):
                into.write(piece)
            _check_whole(answer, into, name, file)
    except httpx.HTTPError as error:
        raise _refused(name, file, f"the hub cannot be reached: {error or type(error).__name__}") from error


def _check_whole(answer: httpx.Response, into: Incoming, name: str, file: str) -> None:
    length = answer.headers.get("content-length")
    if length is not None and int(length) != into.bytes:
        raise _refused(name, file, f"the hub sent {into.bytes} of {length} bytes")


def _refused(name: str, file: str, problem: str) -> InputError:
    message = f"hub: {truncate(file, 200)} of the data set {truncate(name, 200)}: {truncate(problem, 200)}"
    return InputError(FailureCode.DATASET_NOT_FOUND, message, "hub")
