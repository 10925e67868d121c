"""SIGTERM asks the trainer to end early: it finishes its step, saves, and leaves."""

import signal
from types import FrameType


class Stop:
    """Whether this process has been asked to stop. The ranks must agree before any of them acts on it."""

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
