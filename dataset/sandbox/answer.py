"""What a process of its own does with a task: limits itself, then reads the file."""

import ctypes
import math
import os
import resource
import signal

from pydantic import BaseModel

from contract.failure import Failure, FailureCode, InputError
from dataset.dataset_reader import count_examples, read_examples
from dataset.dataset_report import check_file
from dataset.held_out import find_example
from dataset.lengths import measure_lengths
from dataset.preview import preview
from dataset.rendering.folder_tokenizer import FolderTokenizer, read_tokenizer
from dataset.rendering.tokenizer import set_chat_template
from dataset.sandbox.tasks import (
    AnyTask,
    CheckFile,
    CountExamples,
    FindExample,
    MeasureLengths,
    PreviewExamples,
    TaskRequest,
    TaskResponse,
    TokenizerRef,
    TryExamples,
)
from dataset.trial import try_examples

MAX_MEMORY = 6 << 30
"""Bytes of address space. A JSON array of the largest size takes 2 GiB, and everything else far less."""
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Ends this process when its parent ends: nobody waits for an answer any more. `parent` is the pid it had."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def answer_task(request: TaskRequest) -> TaskResponse:
    """Limits this process for good, then does the task."""
    _limit(request.seconds)
    try:
        return TaskResponse(answer=_run(request.task))
    except InputError as error:
        return TaskResponse(failure=error.failure)
    except MemoryError:
        message = "the file takes more memory to read than it may; split it"
        failure = Failure(code=FailureCode.DATASET_INVALID, message=message, param="dataset")
        return TaskResponse(failure=failure)


def _limit(seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    # All threads together count.
    cpu = math.ceil(seconds * 4)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))


def _run(task: AnyTask) -> BaseModel:
    match task:
        case CheckFile():
            return check_file(task.file, task.max_bytes)
        case CountExamples():
            return count_examples(task.file, task.max_bytes)
        case FindExample():
            return find_example(task.file, task.index)
        case MeasureLengths():
            return measure_lengths(_tokenizer(task.tokenizer), task.file, task.max_seconds)
        case PreviewExamples():
            return preview(_tokenizer(task.tokenizer), task.file, task.max_length, task.offset, task.limit)
        case TryExamples():
            return try_examples(_tokenizer(task.tokenizer), read_examples(task.file), task.embeddings)


def _tokenizer(given: TokenizerRef) -> FolderTokenizer:
    tokenizer = read_tokenizer(given.folder)
    if given.chat_template is not None:
        set_chat_template(tokenizer, given.chat_template)
    return tokenizer
