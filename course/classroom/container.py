"""Sessions in containers, for systems without a sandbox: docker or podman, a container each.

The image needs what requirements.txt names; `Containerfile` beside this module makes one. A
container has no network, a read-only file system with the course in it, and limits on memory and
processes.
"""

import json
import secrets
import select
import shutil
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from course.classroom.planning import Step
from course.classroom.results import Failure
from course.classroom.session import DIED, STARTING, too_long
from course.classroom.warm import files_beside
from course.lesson_files import ROOT

SHOWN = ("vit.py", "coatnet", "course")
LIMITS = [
    *("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
    *("--memory=3g", "--memory-swap=3g", "--pids-limit=64", "--ulimit=core=0", "--user=1000:1000"),
    *("--tmpfs=/tmp:size=64m,mode=1777", "--workdir=/tmp", "--env=HOME=/tmp"),
    *("--env=PYTHONPATH=/course", "--env=OMP_NUM_THREADS=1", "--env=MPLBACKEND=agg"),
]
RUN = "from course.classroom.container import serve; serve()"
LONGEST = 1 << 16  # bytes of a reply


class Containers:
    """Makes sessions from an image. Raises RuntimeError where there is no docker and no podman."""

    def __init__(self, image: str):
        self.program = shutil.which("podman") or shutil.which("docker")
        if not self.program:
            raise RuntimeError("--container needs podman or docker, and neither is installed")
        self.image = image
        found = subprocess.run(
            [self.program, "image", "inspect", image], capture_output=True, check=False
        )
        if found.returncode:
            raise RuntimeError(
                f"there is no image {image}; make it: {Path(self.program).name} build -t {image} "
                f"-f {Path(__file__).with_name('Containerfile')} {ROOT}"
            )

    def __call__(self, steps: list[Step], folder: Path) -> "Contained":
        return Contained(self, steps, folder)


class Contained:
    """A session in a container of its own, which goes when it is left."""

    def __init__(self, containers: Containers, steps: list[Step], folder: Path):
        self.containers, self.alive = containers, True
        self.name = f"coatnet-{secrets.token_hex(8)}"
        self.order = {
            "steps": [{**asdict(step), "exercise": None} for step in steps],
            "files": files_beside(folder),
        }

    def __enter__(self):
        shown = [f"--volume={ROOT / name}:/course/{name}:ro" for name in SHOWN]
        program = self.containers.program
        self.process = subprocess.Popen(
            [
                *(program, "run", "--rm", "--interactive", f"--name={self.name}", *LIMITS, *shown),
                *(self.containers.image, "python", "-c", RUN),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._send(self.order)
        if self._line(STARTING) != b"ready":
            self.__exit__()
            raise RuntimeError("the container ended before it was ready")
        return self

    def __exit__(self, *_):
        program = self.containers.program
        subprocess.run([program, "kill", self.name], capture_output=True, check=False)
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.alive = False

    def run(self, number: int, limit: float) -> Failure | None:
        secret = secrets.token_hex(16)
        self._send([number, secret])
        line = self._line(limit)
        if line is None:
            self.__exit__()
            return too_long(limit)
        try:
            said, failure = json.loads(line)
            if said != secret:
                raise ValueError
            return Failure(*map(str, failure)) if failure else None
        except (ValueError, TypeError):
            self.__exit__()
            return DIED

    def _send(self, message):
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
        except OSError:  # it has died: the reply, which does not come, says so
            return

    def _line(self, limit):
        """A line of what the container says; b"" where it has ended, None where none comes."""
        found, until = b"", time.monotonic() + limit
        while not found.endswith(b"\n") and len(found) < LONGEST:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                return None
            data = self.process.stdout.read(1)
            if not data:
                break
            found += data
        return found.rstrip(b"\n")


def serve() -> None:
    """In the container: runs the steps that standard input asks for."""
    import os
    import sys

    from course.classroom.runner import Runner

    asked, told = os.fdopen(os.dup(0), "rb"), os.dup(1)
    order = json.loads(asked.readline())
    for name, data in order["files"].items():
        Path(name).write_bytes(bytes.fromhex(data))
    runner = Runner([Step(**step) for step in order["steps"]])
    os.write(told, b"ready\n")
    for line in asked:
        number, secret = json.loads(line)
        os.write(told, json.dumps([secret, runner.run(number)]).encode() + b"\n")
    sys.exit()
