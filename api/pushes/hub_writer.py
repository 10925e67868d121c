"""`python -m api.pushes.hub_writer PARENT`: uploads files to a hub with the hub's own package, in one commit.

In: a JSON object on stdin. Out: one on stdout. What the hub has already is not uploaded again.

A process of its own, so that it can be ended in the middle of a file, and so that the package's threads and memory stay
away from the API. It ends with the process PARENT.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

from contract.formatting import truncate
from runtime.processes import end_with_parent

_PASSING = {408, 412, 425, 429}
"""Besides those from 500 on, the statuses that another try may not meet. 412 is a commit of somebody else meanwhile."""


def main() -> None:
    if end_with_parent(int(sys.argv[1]), signal.SIGKILL):
        json.dump(write(json.load(sys.stdin)), sys.stdout)


def write(given: dict[str, Any]) -> dict[str, Any]:
    """The repo's `url` and the `commit_url`; or an `error`, and whether it `may_pass`."""
    try:
        return _write(given)
    except Exception as error:  # of the hub, of the network, of a file: all are reported
        return _problem(error, given["token"])


def _write(given: dict[str, Any]) -> dict[str, Any]:
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi, set_client_factory

    # The package itself waits without end.
    timeout = httpx2.Timeout(given["seconds"], connect=30)
    set_client_factory(lambda: httpx2.Client(follow_redirects=True, timeout=timeout))
    api, repo, revision = HfApi(token=given["token"]), given["repo"], given["revision"]
    api.create_repo(repo, private=given["private"], exist_ok=True)
    if revision is not None:
        api.create_branch(repo, branch=revision, exist_ok=True)
    files = [CommitOperationAdd(name, Path(path).resolve(strict=True)) for name, path in given["files"].items()]
    texts = [CommitOperationAdd(name, text.encode()) for name, text in given["texts"].items()]
    commit = api.create_commit(repo, files + texts, commit_message=given["message"], revision=revision)
    return {"url": f"{api.endpoint}/{repo}", "commit_url": commit.commit_url}


def _problem(error: BaseException, token: str) -> dict[str, Any]:
    from huggingface_hub.errors import HfHubHTTPError

    # The package wraps what it meets while it uploads a file. The address for that may have expired.
    is_of_file = isinstance(error, RuntimeError) and error.__cause__ is not None
    cause = error.__cause__ if is_of_file else error
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        said = f"{status} {cause.response.reason_phrase}: {cause.server_message or 'without a reason'}"
        may_pass = is_of_file or status >= 500 or status in _PASSING
        return {"error": f"the hub answers {quote(said, token)}", "may_pass": may_pass}
    if isinstance(cause, json.JSONDecodeError):
        return {"error": "the answer is none of a hub's; is HF_ENDPOINT right?", "may_pass": True}
    if isinstance(cause, FileNotFoundError):  # the next try finds out why
        return {"error": "a file of the artifact is gone from the server", "may_pass": True}
    words = quote(f"{cause}" or type(cause).__name__, token)
    if isinstance(cause, ValueError):  # a model card that the hub does not take, for example
        return {"error": words, "may_pass": False}
    return {"error": f"the hub cannot be reached, or the upload broke off: {words}", "may_pass": True}


def quote(words: str, token: str) -> str:
    """Words without the token, which a hub may repeat, truncated. Truncated first, they could end in a part of it."""
    return truncate(words.replace(token, "[secret]"), 600)


if __name__ == "__main__":
    main()
