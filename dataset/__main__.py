"""`python -m dataset`: one task, as JSON, from stdin; its answer to stdout. dataset/sandbox.py starts it."""

import ctypes
import json
import math
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from contract.failure import Failure, FailureCode, InputError
from dataset.lengths import measure
from dataset.preview import preview
from dataset.read import count_examples, read_examples
from dataset.rendering.folder_tokenizer import FolderTokenizer, read_tokenizer
from dataset.rendering.tokenizer import set_chat_template
from dataset.report import report
from dataset.trial import try_examples

MOST_MEMORY = 6 << 30
"""Bytes of address space: an array of JSON of the largest size takes 2 GiB, and all else far less."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    given = json.load(sys.stdin.buffer)
    task = _TASKS[given.pop("task")]
    _limit(given.pop("seconds"))
    try:
        answer: dict[str, Any] = {"answer": task(given).model_dump(mode="json")}
    except InputError as error:
        answer = _refused(error.failure)
    except MemoryError:
        message = "the file takes more memory to read than it may; split it"
        answer = _refused(Failure(code=FailureCode.DATASET_INVALID, message=message, param="dataset"))
    sys.stdout.write(json.dumps(answer))


def _refused(failure: Failure) -> dict[str, Any]:
    return {"failure": failure.model_dump(mode="json")}


def _limit(seconds: float) -> None:
    # The service is killed: nobody waits for an answer any more.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    # Of all threads together.
    cpu = math.ceil(seconds * 4)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _check(given: Mapping[str, Any]) -> BaseModel:
    return report(_path(given), given["name"], given["format"], given["columns"], given["largest"])


def _count(given: Mapping[str, Any]) -> BaseModel:
    return count_examples(_path(given), given["name"], given["format"], given["columns"], given["largest"])


def _measure(given: Mapping[str, Any]) -> BaseModel:
    return measure(
        _tokenizer(given), _path(given), given["name"], given["format"], given["columns"], given["most_seconds"]
    )


def _preview(given: Mapping[str, Any]) -> BaseModel:
    return preview(
        _tokenizer(given),
        _path(given),
        given["name"],
        given["format"],
        given["columns"],
        given["max_length"],
        given["offset"],
        given["limit"],
    )


def _try(given: Mapping[str, Any]) -> BaseModel:
    examples = read_examples(_path(given), given["format"], given["columns"], name=given["name"])
    return try_examples(_tokenizer(given), examples, given["embeddings"])


def _path(given: Mapping[str, Any]) -> Path:
    return Path(given["path"])


def _tokenizer(given: Mapping[str, Any]) -> FolderTokenizer:
    tokenizer = read_tokenizer(Path(given["model"]))
    if given["chat_template"] is not None:
        set_chat_template(tokenizer, given["chat_template"])
    return tokenizer


_TASKS: Mapping[str, Callable[[Mapping[str, Any]], BaseModel]] = {
    "check": _check,
    "count": _count,
    "measure": _measure,
    "preview": _preview,
    "try": _try,
}


if __name__ == "__main__":
    main()
