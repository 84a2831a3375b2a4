"""Runs the steps of one notebook, in the process that is there for them alone."""

import builtins
import linecache
import os
import signal
import sys
import types

from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from course.classroom import honesty
from course.classroom.planning import Step, needs_ipython

LONGEST = 4000  # letters of a message


NO_HISTORY = Config({"HistoryManager": {"enabled": False}})


class Shell(InteractiveShell):
    """IPython without a terminal, for magics."""

    def ask_exit(self) -> None:
        """What exit() calls here: it ends the cell, as anywhere."""
        sys.exit()


class Runner:
    """Runs steps in a fresh `__main__`, as a kernel does, and shows their output to nobody."""

    def __init__(self, steps: list[Step]):
        self.steps = steps
        self.running = False
        _silence()
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        self.namespace = vars(module)
        sys.path[:] = [path for path in sys.path if path] + [""]  # never before the course's own
        builtins.input = _nobody_types
        self.shell = None
        if any(needs_ipython(step.source) for step in steps if not step.checks):
            self.shell = Shell(user_module=module, user_ns=self.namespace, config=NO_HISTORY)

    def run(self, number: int) -> tuple[str, str] | None:
        """None where the step ran through, else the exception's name and message."""
        signal.signal(signal.SIGINT, self._interrupt)  # whatever an earlier step made of it
        try:
            self.running = True
            self._run(number)
        except BaseException as error:  # SystemExit and KeyboardInterrupt too
            self.running = False
            return type(error).__name__, _text(error)
        finally:
            self.running = False
        return None

    def _run(self, number):
        step = self.steps[number]
        if step.probe:
            honesty.probe(step.checks, step.source)
        elif step.checks:
            honesty.check(self.namespace, step.checks, step.source)
        elif self.shell:
            result = self.shell.run_cell(step.source, silent=True)
            result.raise_error()
        else:
            name = f"cell-{number}.py"  # for inspect and tracebacks
            lines = step.source.splitlines(keepends=True)
            linecache.cache[name] = len(step.source), None, lines, name
            exec(compile(step.source, name, "exec", dont_inherit=True), self.namespace)
        if number == 0:
            honesty.seal()  # the lesson's imports may have changed what checks rely on, not others

    def _interrupt(self, *_):
        if self.running:
            raise KeyboardInterrupt


def _silence():
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 (for the process's life)
    sys.stdout = open(1, "w", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="replace", closefd=False)  # noqa: SIM115


def _nobody_types(prompt=""):
    raise StdinNotImplementedError(  # as kernels say it
        "raw_input was called, but this frontend does not support input requests."
    )


def _text(error):
    try:
        return str(error)[:LONGEST]
    except BaseException as another:
        return f"its message cannot be made: {type(another).__name__}"
