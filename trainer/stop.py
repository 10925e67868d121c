"""SIGTERM or Ctrl-C makes the trainer end early: it abandons the current step, saves and exits."""

import ctypes
import os
import signal
from types import FrameType

_PR_SET_PDEATHSIG = 1


class Stop:
    """Whether this process has a stop request. The ranks must agree before any of them acts on it."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # a second Ctrl-C ends it at once

    def when_launcher_dies(self) -> None:
        """Makes the kernel send SIGTERM when torchrun dies. torchrun gives each rank its own session, so a SIGKILL of
        torchrun would leave the ranks running. Linux only.

        Not covered: a torchrun that dies before Python has started here. Its store is gone then, so no rank gets past
        the rendezvous.
        """
        launcher = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != launcher:
            self.requested = True
