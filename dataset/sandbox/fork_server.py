"""`python -m dataset.sandbox.fork_server FD`: forks a process for each task. It has all modules of a task loaded, which
take far longer than most tasks.

Each message on the socket FD brings a connection and a file for errors. The server answers on the connection with a
pidfd of the new process, which reads a TaskRequest there and writes its TaskResponse, both as JSON. The server ends
when the socket is closed, and its processes end with it.
"""

import gc
import os
import signal
import socket
import sys
import traceback

from dataset.sandbox.answer import answer_task, end_with_parent
from dataset.sandbox.tasks import TaskRequest

_PIECE = 1 << 16


def main() -> None:
    server = os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    gc.freeze()  # else a search for garbage in a task would copy all pages of the modules
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        while files := socket.recv_fds(requests, 1, 2)[1]:
            connection, errors = socket.socket(fileno=files[0]), files[1]
            pid = os.fork()
            if pid == 0:
                requests.close()
                _serve(connection, errors, server)
            handle = os.pidfd_open(pid)
            socket.send_fds(connection, [b"."], [handle])
            os.close(handle)
            os.close(errors)
            connection.close()


def _serve(connection: socket.socket, errors: int, server: int) -> None:
    """Does one task, then ends this process."""
    status = 1
    try:
        end_with_parent(server)
        os.setsid()
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        os.close(errors)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.sendall(_answer(connection).encode())
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _answer(connection: socket.socket) -> str:
    """One line, so that the reader knows whether it has all."""
    request = b"".join(iter(lambda: connection.recv(_PIECE), b""))
    return answer_task(TaskRequest.model_validate_json(request)).model_dump_json() + "\n"


if __name__ == "__main__":
    main()
