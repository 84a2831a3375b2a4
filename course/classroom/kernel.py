"""A session in a Jupyter kernel: on every system, with all that notebooks can, and no sandbox."""

import os
import queue
import subprocess
from pathlib import Path

from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import KernelManager

from course.classroom.planning import Step
from course.classroom.results import Failure
from course.classroom.session import DIED, GRACE, STARTING, Watch, too_long
from course.lesson_files import ROOT

# exit() would end the kernel a little later, in some other exercise's cell; and a vit.py or
# torch.py beside the notebook must not stand in for the course's
READY = """
import sys
get_ipython().ask_exit = sys.exit
sys.path[:] = [path for path in sys.path if path] + [""]
"""
HONESTY = "__import__('course.classroom.honesty', fromlist=['_'])"


class Kernel:
    """A kernel in `folder`. Its output goes nowhere: nobody reads it, and there may be a lot."""

    def __init__(self, steps: list[Step], folder: Path):
        self.steps = steps
        self.manager = KernelManager(kernel_name="python3")
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.settings = {
            "cwd": str(folder),
            "env": {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL),
        }

    def __enter__(self):
        try:
            self.manager.start_kernel(**self.settings)
        except NoSuchKernel as error:
            raise RuntimeError(str(error)) from None
        self.client = self.manager.client()
        try:
            self.client.start_channels()
            self.client.wait_for_ready(timeout=STARTING)
        except BaseException:
            self.__exit__()
            raise
        self._run(READY, STARTING)
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    @property
    def alive(self) -> bool:
        return self.manager.is_alive()

    def run(self, number: int, limit: float) -> Failure | None:
        step = self.steps[number]
        source = f"{step.source}\n{HONESTY}.seal()" if number == 0 else step.source
        if step.probe:
            source = f"{HONESTY}.probe({step.checks!r}, {step.source!r})"
        elif step.checks:
            source = f"{HONESTY}.check(globals(), {step.checks!r}, {step.source!r})"
        return self._run(source, limit)

    def _run(self, source, limit):
        request = self.client.execute(
            source, store_history=False, allow_stdin=False, stop_on_error=False
        )
        reply = self._reply(request, Watch(self.manager.provisioner.pid, limit))
        if reply:
            return Failure(reply["ename"], reply["evalue"]) if reply["status"] == "error" else None
        if not self.alive:
            return DIED
        self.manager.interrupt_kernel()
        if not self._reply(request, Watch(self.manager.provisioner.pid, GRACE)):
            self.manager.shutdown_kernel(now=True)
        return too_long(limit)

    def _reply(self, request, watch):
        """What the kernel says to a request; None where it says nothing in time, or is dead."""
        while not watch.over():
            try:
                reply = self.client.get_shell_msg(timeout=0.2)
            except queue.Empty:
                if not self.alive:
                    return None
                continue
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"]
        return None
