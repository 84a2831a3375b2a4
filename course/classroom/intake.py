"""What was handed in, as a class or a platform leaves it -> a notebook for each student and lesson.

Known are a folder for each student (also a clone of a student's repository, and nbgrader's
`submitted/`), an archive for each student, Moodle's and Canvas's downloads, and plain files with
the student's name in theirs.
"""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import nbformat
from nbformat import NotebookNode

from course import lesson_files
from course.classroom.archives import ARCHIVES, PASSED_OVER, File, files
from course.classroom.planning import lesson_of

MOODLE = re.compile(r"(?P<name>.+?)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<rest>.*)")
CANVAS = re.compile(r"(?P<name>[^_]+)(?:_LATE)?_(?P<id>\d+)_\d+_(?P<rest>.+)", re.IGNORECASE)
COPY = re.compile(r"copy of | ?\(\d+\)|-copy\d*|-\d+(?=\.ipynb$)| - copy", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Student:
    """Who handed in; `platform` and `id` are the learning platform's, or ""."""

    name: str
    id: str = ""
    platform: str = ""

    @property
    def label(self) -> str:
        return f"{self.name} ({self.id})" if self.id else self.name


@dataclass
class Submission:
    """A student's notebook of one lesson: its code cells alone, or why it cannot be read."""

    student: Student
    lesson: str
    path: str
    modified: float
    notebook: NotebookNode | None = None
    problem: str = ""
    files: dict[str, bytes] = field(default_factory=dict)  # modules beside it
    note: str = ""

    @property
    def digest(self) -> str:
        """A hash of all that decides what becomes of it."""
        cells = [(c.get("id"), c.source) for c in self.notebook.cells] if self.notebook else ()
        content = repr((cells, self.problem, sorted(self.files.items())))
        return hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()


@dataclass
class Intake:
    """submissions: the newest of each student and lesson. problems: (where, why not read)."""

    students: list[Student]
    submissions: list[Submission]
    problems: list[tuple[str, str]]


def take_in(top: Path, lessons: dict[str, NotebookNode]) -> Intake:
    """Reads a folder, or an archive, of submissions."""
    found = list(files(top))
    if _only_an_archive(top):
        found = [_up(file) for file in found]
    by_student: dict = defaultdict(list)
    problems = []
    for path in top.iterdir() if top.is_dir() else ():
        if path.is_symlink() or path.name in PASSED_OVER or path.name[0] == ".":
            continue
        if path.is_dir():
            student, _ = who(PurePosixPath(path.name, "notebook"), top, lessons)
            by_student[student] += []  # who has handed in nothing is still of the class
    for file in found:
        student, rest = who(file.path, top, lessons)
        if file.problem and len(file.path.parts) == 1 and not file.path.suffix:
            problems.append((str(file.path), file.problem))  # a link to a folder
        else:
            by_student[student].append((rest, file))
    submissions, students = [], []
    for student, own in sorted(by_student.items()):
        own = of_a_clone(own)
        read = [_submission(student, rest, file, own, lessons) for rest, file in own]
        read = [submission for submission in read if submission]
        problems += [
            (s.path, s.problem or "it has no exercise of the course") for s in read if not s.lesson
        ]
        if own and not read:
            continue  # modules alone, such as those of a stray folder
        students.append(student)
        for lesson in lessons:
            versions = [submission for submission in read if submission.lesson == lesson]
            if versions:
                submissions.append(newest(versions))
    return Intake(students, submissions, problems)


def newest(versions: list[Submission]) -> Submission:
    """The version that counts; one that can be read before one that cannot."""
    chosen = max(versions, key=lambda v: (not v.problem, v.modified, v.path))
    if len(versions) > 1:
        others = ", ".join(sorted(v.path for v in versions if v is not chosen))
        chosen.note = f"{len(versions)} versions: {chosen.path} counts, the newest; not {others}"
    return chosen


def who(path: PurePosixPath, top: Path, lessons: Collection[str]) -> tuple[Student, PurePosixPath]:
    """Whose a file is, and its path from there."""
    first, rest = path.parts[0] if path.parts else top.name, PurePosixPath(*path.parts[1:])
    for platform, pattern in (("Moodle", MOODLE), ("Canvas", CANVAS)):
        match = pattern.fullmatch(first)
        if match:
            inner = PurePosixPath(match["rest"]) / rest if match["rest"] else rest
            return Student(_tidy(match["name"]), match["id"], platform), inner
    if len(path.parts) > 1 and first not in ("work", "notebooks", "solutions", "lessons"):
        return Student(_tidy(first)), rest
    named = "|".join(map(re.escape, lessons))
    name = _tidy(re.sub(rf"{named}|(?<!\d)\d\d(?!\d)|\.\w+$", " ", COPY.sub("", first)))
    return Student(name if name and len(path.parts) < 2 else top.name), path


def _tidy(name):
    name = unicodedata.normalize("NFC", name)  # macOS writes an umlaut as two
    return re.sub(r"[\s_]+", " ", name).strip(" -._")


def _only_an_archive(top):
    """True for a folder with one archive, that of the whole class, and nothing else."""
    inside = [path for path in top.iterdir() if path.name[0] != "."] if top.is_dir() else []
    return len(inside) == 1 and inside[0].name.lower().endswith(ARCHIVES)


def _up(file):
    return File(PurePosixPath(*file.path.parts[1:]), file.modified, file.data, file.problem)


def of_a_clone(own: list[tuple[PurePosixPath, File]]) -> list[tuple[PurePosixPath, File]]:
    """Of a student's repository only what the student works on; otherwise all."""
    folders = {part for path, _ in own for part in path.parts[:-1]}
    if "work" in folders:
        at_work = [(path, file) for path, file in own if "work" in path.parts[:-1]]
        kept = [(p, f) for p, f in at_work if not {"base", ".base", "backup"} & set(p.parts[:-1])]
        if any(path.suffix == ".ipynb" for path, _ in kept):
            return kept
    if {"lessons", "notebooks"} <= folders:
        return [(path, file) for path, file in own if "notebooks" in path.parts[:-1]]
    return own


def _submission(student, rest, file, own, lessons):
    """None for a module, which is taken along with the notebook beside it."""
    path = str(file.path) if file.path.parts else file.path.name
    submission = Submission(student, "", path, file.modified, problem=file.problem)
    if rest.suffix.lower() == ".py" and not file.problem:
        return None
    name = COPY.sub("", rest.name)
    if not submission.problem:
        try:
            whole = lesson_files.parse_notebook(file.data)
            submission.lesson = lesson_of(whole, lessons, name)
            submission.notebook = code_alone(whole)
        except ValueError as error:
            submission.problem = str(error)
    if submission.problem:
        number = re.search(r"(?<!\d)(\d\d)_", name)
        named = [lesson for lesson in lessons if number and lesson.startswith(number[0])]
        submission.lesson = named[0] if named else ""
    beside = [(p.name, f.data) for p, f in own if p.suffix == ".py" and p.parent == rest.parent]
    submission.files = dict(beside)
    return submission


def code_alone(notebook: NotebookNode) -> NotebookNode:
    """The code cells without outputs, which may be large."""
    kept = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells = [
        {key: cell[key] for key in ("id", "cell_type", "source") if key in cell} for cell in kept
    ]
    return nbformat.from_dict({"cells": cells})
