"""An exception in a student's code, told by the objects that it happened to."""

import linecache
import textwrap
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from course.checking.hints import likely_mistake
from course.checking.outcomes import CheckFailed, Shown
from course.checking.problems import Call, CallsWatched, is_students_frame, problem_of
from course.checking.shapes import shapes_of


@contextmanager
def students_code(expected: str) -> Iterator[None]:
    """Turns an exception in a student's code into a CheckFailed that shows the student's line."""
    with CallsWatched() as calls:
        try:
            yield
        except Shown:
            raise
        except (Exception, SystemExit) as error:
            raise failure_of(error, expected, calls.failed) from error


def failure_of(error: BaseException, expected: str, call: Call | None = None) -> CheckFailed:
    """The CheckFailed that tells of an exception in a student's code."""
    problem = problem_of(error, call if call and call.error is error else None)
    message = str(error).strip()
    came = textwrap.shorten(f"{type(error).__name__}: {message}", 200, placeholder=" ...")
    look_at = ""
    if problem.frame:
        name, text = problem.frame.f_code.co_name, _source_line(problem.frame, problem.line)
        look_at = f"line {problem.line}, in {name}:\n{text}"
    try:
        likely = likely_mistake(problem)
    except Exception:  # a hint is not worth a traceback
        likely = ""
    return CheckFailed(expected, came, likely, look_at, shapes=shapes_of(problem.call))


def is_students(error: BaseException) -> bool:
    """True where an error arose in a student's code, or below it."""
    return any(is_students_frame(frame) for frame, _ in traceback.walk_tb(error.__traceback__))


def _source_line(frame, line):
    linecache.checkcache(frame.f_code.co_filename)
    return linecache.getline(frame.f_code.co_filename, line).strip()
