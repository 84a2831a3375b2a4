"""Grades many notebooks at once, with any executor of concurrent.futures."""

import atexit
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat

from course import lesson_files
from course.classroom.engine import LIMIT, all_imports, all_rows, run_notebook
from course.classroom.intake import Submission
from course.classroom.planning import plan
from course.classroom.results import FAILING
from course.classroom.session import Sessions
from course.classroom.signs import signs
from course.classroom.store import Graded, course_digest
from course.classroom.warm import Warm, can_fork
from course.lesson_files import ROOT

SANDBOX, TRUST = "sandbox", "trust"  # or "container:IMAGE"


@dataclass(frozen=True)
class Task:
    """One notebook to grade: all that a worker, which may be on another machine, needs to know."""

    student: str
    lesson: str
    digest: str
    cells: tuple[dict, ...]
    files: tuple[tuple[str, bytes], ...]
    where: str
    limit: float


def task_of(submission: Submission, where: str, limit: float = LIMIT) -> Task:
    return Task(
        submission.student.label,
        submission.lesson,
        f"{submission.digest} {course_digest()} {limit:g}",
        tuple(submission.notebook.cells) if submission.notebook else (),
        tuple(sorted(submission.files.items())),
        where,
        limit,
    )


def grade(task: Task) -> Graded:
    """Grades one notebook, in the sessions of this process. Never raises for what is in it."""
    started = time.perf_counter()
    lesson = _lesson(task.lesson)
    notebook = nbformat.from_dict({"cells": list(task.cells)})
    with TemporaryDirectory() as folder:
        for name, data in task.files:
            Path(folder, name).write_bytes(data)
        sessions = sessions_for(task.where)
        rows = run_notebook(
            task.lesson, notebook, lesson, sessions, Path(folder), task.limit, probed=True
        )
    steps = [step for step in plan(notebook, lesson)[1:] if not step.checks]
    found = dict.fromkeys(sign for step in steps for sign in signs(step.source))
    seconds = round(time.perf_counter() - started, 2)
    return Graded(task.student, task.lesson, task.digest, tuple(rows), tuple(found), seconds)


def unreadable(submission: Submission, digest: str) -> Graded:
    """A notebook that no program can read, with what a person may do about it."""
    message = f"{submission.path} cannot be read: {submission.problem}"
    rows = all_rows(submission.lesson, _lesson(submission.lesson), FAILING, message)
    return Graded(submission.student.label, submission.lesson, digest, tuple(rows))


def grade_all(tasks: list[Task], executor: Executor) -> Iterator[Graded]:
    """Grades tasks as they come. Raises what a worker raised: that is a fault of the grader's."""
    futures = [executor.submit(grade, task) for task in tasks]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


@lru_cache
def _lesson(name):
    return lesson_files.read_lesson(ROOT / "lessons" / f"{name}.py")


_made: dict[str, Sessions] = {}
_lock = threading.Lock()


def sessions_for(where: str) -> Sessions:
    """Those of this process, made once. Raises RuntimeError where they cannot be made."""
    with _lock:
        if where not in _made:
            _made[where] = _make(where)
        return _made[where]


def _make(where):
    if where.startswith("container:"):
        from course.classroom.container import Containers

        return Containers(where.partition(":")[2])
    if where == TRUST and not can_fork():
        from course.classroom.kernel import Kernel

        return Kernel
    lessons = [_lesson(path.stem) for path in sorted((ROOT / "lessons").glob("*.py"))]
    steps = [step for lesson in lessons for step in plan(lesson, lesson) if step.checks]
    rehearse = "from course.classroom.honesty import rehearse; rehearse"
    rehearsals = [f"{rehearse}{step.checks, step.source}" for step in steps]
    warm = Warm(where == SANDBOX, [*all_imports(lessons), *rehearsals])
    atexit.register(warm.close)
    return warm
