"""Ctrl-C and SIGTERM, taken as a wish to stop after the step that is under way."""

import signal
import threading
import time
from typing import Any


class StopSignals:
    """While it lasts, Ctrl-C and SIGTERM are noted, and `wanted` says whether one came.

    So a step is finished before the run ends, and a checkpoint never holds half of one. Two seconds
    later and more, another one interrupts as usual; sooner it is an echo, since launchers pass
    on what the terminal has sent to all. Without `listen`, or outside the main thread, which alone
    may handle signals, nothing changes.
    """

    def __init__(self, listen: bool = True) -> None:
        self.listen = listen and threading.current_thread() is threading.main_thread()
        self.came: float | None = None  # when
        self.before: dict[int, Any] = {}

    @property
    def wanted(self) -> bool:
        return self.came is not None

    def __enter__(self) -> "StopSignals":
        if self.listen:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self.note)
        return self

    def note(self, number: int, frame: Any) -> None:
        if self.came is None:
            self.came = time.monotonic()
        elif time.monotonic() - self.came > 2:
            self.__exit__()
            signal.raise_signal(number)

    def __exit__(self, *raised: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)
