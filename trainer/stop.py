"""SIGTERM, or Ctrl-C, asks the trainer to end early: it gives up the step it is in, saves, and leaves."""

import ctypes
import os
import signal
from types import FrameType

_PR_SET_PDEATHSIG = 1


class Stop:
    """Whether this process has been asked to stop. The ranks must agree before any of them acts on it."""

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
        """Has the kernel send SIGTERM when torchrun dies, which gives each rank a session of its own: a SIGKILL of
        torchrun would leave the ranks running. Linux alone.

        Not covered: a torchrun that dies before Python has started here; then its store is gone, and no rank gets
        further than the rendezvous.
        """
        launcher = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != launcher:
            self.requested = True
