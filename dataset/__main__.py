"""`python -m dataset`: reads a TaskRequest from stdin and writes its TaskResponse to stdout, both as JSON."""

import os
import sys

from dataset.sandbox.answer import answer_task, end_with_parent
from dataset.sandbox.tasks import TaskRequest


def main() -> None:
    end_with_parent(os.getppid())
    request = TaskRequest.model_validate_json(sys.stdin.buffer.read())
    sys.stdout.write(answer_task(request).model_dump_json())


if __name__ == "__main__":
    main()
