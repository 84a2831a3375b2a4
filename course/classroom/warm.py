"""Sessions forked from a process that has imported everything once: a few hundredths of a second
each instead of the seconds that a kernel and its imports take."""

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

from course.classroom.planning import Step
from course.classroom.results import Failure
from course.classroom.session import DIED, PLACE, STARTING, too_long
from course.lesson_files import ROOT

TOTAL = 600  # seconds of computing, for one session
BESIDE = 1_000_000  # bytes of the files beside a notebook that its code may read
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT")  # no tokens, no names
SETTINGS = {
    "PYTHONPATH": str(ROOT),
    "PYTHONNOUSERSITE": "",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MPLBACKEND": "agg",
    "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS
}
AT_HOME = {
    "USER": "student",
    **dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR", "IPYTHONDIR"), PLACE),
}


def files_beside(folder: Path) -> dict[str, str]:
    """What a notebook's code may import or read: the other files there, in hexadecimal digits."""
    found, size = {}, 0
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file() or path.suffix == ".ipynb":
            continue
        size += path.stat().st_size
        if size > BESIDE:
            break
        found[path.name] = path.read_bytes().hex()
    return found


def can_fork() -> bool:
    return hasattr(os, "fork") and hasattr(socket, "send_fds")


class Warm:
    """The warm process. Makes sessions, for any number of threads at once; close it at the end.

    jailed: in a sandbox of its own. imports: statements to run once, for all sessions.

    Raises RuntimeError where the process, or its sandbox, cannot be made.
    """

    def __init__(self, jailed: bool, imports: list[str]):
        if jailed and sys.platform != "linux":
            raise RuntimeError("the sandbox needs Linux")
        self.jailed, self.lock = jailed, threading.Lock()
        self.control, theirs = socket.socketpair()
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        outside = {**kept, **AT_HOME} if jailed else os.environ
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "course.classroom.zygote", str(theirs.fileno())),
                *("jailed" if jailed else "free", *imports),
            ],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            env={**outside, **SETTINGS},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the grader
        )
        theirs.close()
        self.control.settimeout(5 * STARTING)
        with self.control.makefile() as said:
            try:
                line = said.readline()
            except TimeoutError:
                line = "it does not answer"
        if line != "\n":
            self.close()
            raise RuntimeError(line.strip() or "the warm process died before it was ready")

    def __call__(self, steps: list[Step], folder: Path) -> "Forked":
        return Forked(self, steps, folder)

    def connect(self) -> Connection:
        ours, theirs = socket.socketpair()
        with self.lock:
            socket.send_fds(self.control, [b"+"], [theirs.fileno()])
        theirs.close()
        return Connection(ours.detach())

    def close(self) -> None:
        """Ends it, and every session with it."""
        self.control.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Forked:
    """A session in a fork of the warm process."""

    def __init__(self, warm: Warm, steps: list[Step], folder: Path):
        self.warm, self.alive = warm, True
        self.order = {
            "steps": [{**asdict(step), "exercise": None} for step in steps],
            "folder": str(folder.resolve()),
            "files": files_beside(folder) if warm.jailed else {},
            "seconds": TOTAL,
        }

    def __enter__(self):
        try:
            self.guard = self.warm.connect()
            self.guard.send_bytes(json.dumps(self.order).encode())
            said = json.loads(self.guard.recv_bytes())
        except (OSError, EOFError) as error:
            raise RuntimeError(f"the warm process is gone: {error}") from None
        if "error" in said:
            raise RuntimeError(said["error"])
        return self

    def __exit__(self, *_):
        self.guard.close()

    def run(self, number: int, limit: float) -> Failure | None:
        try:
            self.guard.send_bytes(json.dumps({"number": number, "limit": limit}).encode())
            said = json.loads(self.guard.recv_bytes())
        except (OSError, EOFError):
            said = {"failure": "died", "alive": False}
        self.alive = said["alive"]
        named = {"died": DIED, "too long": too_long(limit)}
        if isinstance(said["failure"], str):
            return named[said["failure"]]
        return Failure(*said["failure"]) if said["failure"] else None
