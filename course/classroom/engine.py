"""Runs the steps of a notebook and says what became of each of its exercises."""

import ast
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from nbformat import NotebookNode

from course import lesson_files
from course.classroom.planning import Step, imports_of, plan
from course.classroom.results import (
    FAILING,
    NOT_SUBMITTED,
    PASSED,
    Failure,
    Row,
    first_line,
    said,
    verdict,
)
from course.classroom.session import STARTING, Sessions
from course.classroom.warm import Warm, can_fork
from course.lesson_files import exercises_of

LIMIT = 60  # seconds a cell
LESSON_LIMIT = 600  # seconds for all cells of a notebook


class Run:
    """The steps of one notebook. Where one costs the session, they are run again in a fresh one
    without it."""

    def __init__(
        self, steps: list[Step], sessions: Sessions, folder: Path, limit: float, probed: bool
    ):
        self.probes = {s.exercise: replace(s, probe=True) for s in steps if s.checks and probed}
        self.steps = [*steps, *self.probes.values()]
        self.sessions, self.folder, self.limit = sessions, folder, limit
        self.until = time.monotonic() + LESSON_LIMIT
        self.done: set[int] = set()  # numbers of steps that must not run again
        self.verdicts: dict = {}  # exercise -> outcome, message
        self.over: set = set()  # exercises that a hanging or crashing cell has failed
        self.troubles: dict = {}  # (exercise, in its cells or below) -> the first failure

    def made(self) -> dict:
        """Outcome and message of each exercise. Raises RuntimeError where no session starts, or the
        lesson's imports fail."""
        while not self._ran_through():
            pass
        return self.verdicts

    def _ran_through(self):
        """True where the session lived to the end."""
        with self.sessions(self.steps, self.folder) as session:
            for number, step in enumerate(self.steps):
                if number in self.done or step.probe:
                    continue
                if step.exercise in self.over and step.checks:
                    continue
                failure = self._run(session, number)
                if failure and number == 0:
                    raise RuntimeError(f"the lesson's imports fail: {said(failure)}")
                self._note(number, step, failure)
                if not session.alive:
                    return False
            self._probe(session)
        return True

    def _probe(self, session):
        """Tries one of the checks that passed, nobody knows which, with a known wrong answer."""
        passed = [e for e, (outcome, _) in self.verdicts.items() if outcome == PASSED]
        if not passed or not self.probes:
            return
        probe = self.probes[secrets.choice(passed)]
        failure = session.run(self.steps.index(probe), STARTING)  # the course's own code
        if failure:
            text = f"nothing here counts as passed, look at it by hand: {said(failure)}"
            self.verdicts |= dict.fromkeys(passed, (FAILING, text))

    def _run(self, session, number):
        if number == 0:
            return session.run(0, STARTING)
        left = self.until - time.monotonic()
        if left <= 0:
            text = f"all of the notebook ran longer than {LESSON_LIMIT} s and was stopped"
            return Failure("", text)
        return session.run(number, min(self.limit, left))

    def _note(self, number, step, failure):
        if step.checks:
            self.done.add(number)
            self.verdicts[step.exercise] = verdict(step, failure, self.troubles)
        elif failure and step.answers and not failure.name:
            self.verdicts[step.exercise] = FAILING, failure.message
            self.over.add(step.exercise)
        elif failure and step.exercise:
            self.troubles.setdefault((step.exercise, step.answers), said(failure))
        if failure and not failure.name:
            self.done.add(number)  # not twice


def run_notebook(
    name: str,
    notebook: NotebookNode,
    lesson: NotebookNode,
    sessions: Sessions,
    folder: Path,
    limit: float = LIMIT,
    probed: bool = False,
) -> list[Row]:
    """The rows of one lesson. Never raises for what a notebook holds or does.

    probed: at the end a known wrong answer must fail, or nothing has passed.
    """
    try:
        verdicts = Run(plan(notebook, lesson), sessions, folder, limit, probed).made()
    except RuntimeError as error:
        return all_rows(name, lesson, FAILING, first_line(str(error)))
    return [Row(name, e.number, e.title, *verdicts[e]) for e in exercises_of(lesson)]


def run_file(
    name: str, path: Path, lesson: NotebookNode, sessions: Sessions, limit: float = LIMIT
) -> list[Row]:
    """As `run_notebook`, of a file, beside which the code runs."""
    try:
        notebook = lesson_files.read_notebook(path)
    except FileNotFoundError:
        return all_rows(name, lesson, NOT_SUBMITTED, f"there is no {path.name}")
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return all_rows(name, lesson, FAILING, f"{path.name} cannot be read: {reason}")
    return run_notebook(name, notebook, lesson, sessions, path.parent, limit)


def all_rows(name: str, lesson: NotebookNode, outcome: str, message: str) -> list[Row]:
    return [Row(name, e.number, e.title, outcome, message) for e in exercises_of(lesson)]


@contextmanager
def trusted_sessions(lessons: list[NotebookNode]) -> Iterator[Sessions]:
    """Sessions with all the rights of who calls, for one's own notebooks: forked from a warm
    process where the system can, else kernels."""
    if not can_fork():
        from course.classroom.kernel import Kernel

        yield Kernel
        return
    with warm_sessions(lessons, jailed=False) as warm:
        yield warm


def all_imports(lessons: list[NotebookNode]) -> list[str]:
    """The import statements of lessons, each once."""
    return sorted({ast.unparse(s) for lesson in lessons for s in imports_of(lesson)})


@contextmanager
def warm_sessions(lessons: list[NotebookNode], jailed: bool) -> Iterator[Sessions]:
    warm = Warm(jailed, all_imports(lessons))
    try:
        yield warm
    finally:
        warm.close()
