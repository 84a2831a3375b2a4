"""A place where a notebook's steps run, one after the other, each for a limited time."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

import psutil

from course.classroom.planning import Step
from course.classroom.results import Failure

STARTING = 120  # seconds for a place to open, and for the lesson's imports: disks can be slow
PATIENCE = 5  # how much longer than its limit a cell may take on a busy machine
PLACE = "/scratch"  # of a session's files in a sandbox; /tmp may hold the course itself
GRACE = 5  # seconds in which an interrupted cell must end, or its process goes
DIED = Failure("", "its process died here: a crash, or os._exit?")


class Watch:
    """Whether a process, and those that it started, have computed for longer than a limit.

    Counted is computing, so that on a busy machine the same answers pass; for what sleeps, or waits
    for something that never comes, the clock counts.
    """

    def __init__(self, process: int, limit: float):
        self.process = process
        self.computed = computed_by(process) + limit
        self.until = time.monotonic() + PATIENCE * limit

    def over(self) -> bool:
        return time.monotonic() > self.until or computed_by(self.process) > self.computed


def computed_by(process: int) -> float:
    """Seconds of computing of a process and of all that it started."""
    try:
        first = psutil.Process(process)
        all_of_them = [first, *first.children(recursive=True)]
    except psutil.Error:
        return 0.0
    total = 0.0
    for one in all_of_them:
        with suppress(psutil.Error):  # it has just ended
            times = one.cpu_times()
            total += times.user + times.system
            total += getattr(times, "children_user", 0) + getattr(times, "children_system", 0)
    return total


class Session(Protocol):
    """Opened by `with`, which raises RuntimeError where it cannot be."""

    @property
    def alive(self) -> bool:
        """False where a step took the process with it: no other can run."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, number: int, limit: float) -> Failure | None:
        """None where the step ran through in `limit` seconds of computing, else its Failure."""


class Sessions(Protocol):
    """Makes sessions for steps; `folder`: where the notebook is, whose files its code may read."""

    def __call__(self, steps: list[Step], folder: Path) -> Session: ...


def too_long(limit: float) -> Failure:
    return Failure("", f"ran longer than {limit:g} s and was stopped: is there an endless loop?")
