"""What is graded already: a file of JSON lines, one for each student and lesson.

A line is written whole and brought to the disk before the next begins, so that whatever ends the
grader, at most the line that it was writing is lost.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from course.classroom.results import Row
from course.lesson_files import ROOT

DECIDES = (
    *("vit.py", "coatnet", "lessons", "course/checks", "course/classroom"),
    *("course/checking", "course/comparing"),
)


@dataclass(frozen=True)
class Graded:
    """What became of a student's notebook of a lesson. signs: what a person should look at."""

    student: str
    lesson: str
    digest: str  # of the notebook, and of what it was graded with
    rows: tuple[Row, ...]
    signs: tuple[str, ...] = field(default=())
    seconds: float = 0.0


class Store:
    """Opened by `with`. Raises OSError where it cannot be written, or another grader has it."""

    def __init__(self, path: Path):
        self.path = path
        self.graded: dict[tuple[str, str], Graded] = {}

    def __enter__(self):
        self.file = self.path.open("ab+")
        _lock(self.file, self.path)
        self.file.seek(0)
        whole = 0
        for line in self.file:
            try:
                found = json.loads(line)
                rows = tuple(Row(**row) for row in found.pop("rows"))
                graded = Graded(rows=rows, **{**found, "signs": tuple(found["signs"])})
            except (ValueError, TypeError, KeyError):
                break  # the line that was being written when the grader was ended
            self.graded[graded.student, graded.lesson] = graded
            whole += len(line)
        self.file.truncate(whole)
        return self

    def __exit__(self, *_):
        self.file.close()

    def get(self, student: str, lesson: str, digest: str) -> Graded | None:
        """What is known of a notebook; None where it, or the course, has changed since."""
        found = self.graded.get((student, lesson))
        return found if found and found.digest == digest else None

    def put(self, graded: Graded) -> None:
        self.file.write(json.dumps(asdict(graded), ensure_ascii=True).encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.graded[graded.student, graded.lesson] = graded


def _lock(file, path):
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(f"another grader is writing {path}") from None


@lru_cache
def course_digest() -> str:
    """A hash of the course's files that decide what becomes of an answer."""
    found = hashlib.sha256()
    for name in DECIDES:
        path = ROOT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            found.update(file.read_bytes())
    return found.hexdigest()
