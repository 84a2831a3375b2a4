"""Grades a class: `python -m course.grade SUBMISSIONS`.

SUBMISSIONS is a folder of students' folders, of archives, of clones of their repositories, or what
Moodle or Canvas export. Which lesson a notebook is follows from its exercises. Into --out come
grades.csv, moodle.csv and canvas.csv for import, index.html with the class as students x exercises
and the commonest mistakes, and feedback/ with a file for each student. What is graded already and
has not changed is not graded again, however the last run ended.

Submissions are strangers' code. On Linux they run in a sandbox: without a network, without sight
of anything but the course, with limits on time, memory, processes and files. Elsewhere --container
does that, or --trust, which runs them with your rights. What is prevented and what is not:
course/classroom/README.md.

Exit code: 0 graded; 2 wrong call, or no sandbox; 130 stopped by Ctrl-C.
"""

import argparse
import io
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from nbformat import NotebookNode
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from course import lesson_files
from course.classroom import pages, tables
from course.classroom.engine import all_rows
from course.classroom.feedback import feedback, write_all
from course.classroom.grading import SANDBOX, TRUST, grade_all, sessions_for, task_of, unreadable
from course.classroom.intake import Intake, Submission, take_in
from course.classroom.results import NOT_SUBMITTED, Row, summary
from course.classroom.store import Graded, Store
from course.lesson_files import ROOT

IMAGE = "coatnet-course"
LIMIT = 20  # seconds a cell: answers take less than one


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m course.grade",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("submissions", type=Path, help="a folder, or an archive")
    made.add_argument("--out", type=Path, default=Path("grades"), help="(default: grades/)")
    made.add_argument("--lessons", nargs="+", metavar="N", help="such as 2 3 (default: all)")
    made.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="at once (default: %(default)s)"
    )
    made.add_argument("--points", type=Path, metavar="FILE", help="lines of lesson,exercise,points")
    made.add_argument(
        "--deadline",
        type=_time,
        metavar="TIME",
        help='such as "2026-11-30 18:00": marks what is late',
    )
    made.add_argument(
        "--limit", type=float, default=LIMIT, help="seconds a cell (default: %(default)s)"
    )
    made.add_argument("--dask", metavar="ADDRESS", help="of a dask.distributed scheduler")
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--container", nargs="?", const=IMAGE, metavar="IMAGE", help=f"(default: {IMAGE})"
    )
    where.add_argument("--trust", action="store_true", help="run submissions with your own rights")
    return made


def _time(text):
    return datetime.fromisoformat(text).timestamp()


def chosen_lessons(names: list[str] | None) -> dict[str, NotebookNode]:
    """All lessons, or those of these numbers. Raises ValueError for one that there is not."""
    paths = {path.stem: path for path in sorted((ROOT / "lessons").glob("*.py"))}
    found = {}
    for name in names or paths:
        number = f"{int(name):02d}" if name.isascii() and name.isdigit() else name
        fitting = [stem for stem in paths if stem == name or stem.startswith(f"{number}_")]
        if len(fitting) != 1:
            raise ValueError(f"there is no lesson {name}; there are {', '.join(paths)}")
        found[fitting[0]] = lesson_files.read_lesson(paths[fitting[0]])
    return dict(sorted(found.items()))


@contextmanager
def executor_of(options: argparse.Namespace) -> Iterator[Executor]:
    """Threads, each of which waits for a process; or a cluster's workers."""
    if not options.dask:
        with ThreadPoolExecutor(options.jobs) as executor:
            yield executor
        return
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("--dask needs dask: pip install 'dask[distributed]'") from None
    try:
        client = Client(options.dask, timeout=30)
    except (OSError, ValueError) as error:
        raise ValueError(f"no scheduler at {options.dask}: {error}") from None
    with client:
        yield client.get_executor(retries=0)


def where_of(options: argparse.Namespace) -> str:
    if options.container:
        return f"container:{options.container}"
    return TRUST if options.trust else SANDBOX


def run(
    submissions: list[Submission], store: Store, options: argparse.Namespace, console: Console
) -> list[Graded]:
    """Grades what is not graded yet. Raises RuntimeError where there is no place to run it."""
    found, tasks = [], []
    for submission in submissions:
        task = task_of(submission, where_of(options), options.limit)
        known = store.get(task.student, task.lesson, task.digest)
        if not known and submission.problem:
            known = unreadable(submission, task.digest)
        if known:
            found.append(known)
        else:
            tasks.append(task)
    if found:
        console.print(f"{len(found)} of {len(submissions)} notebooks are graded already")
    if tasks and not options.dask:
        with console.status("importing everything once"):
            sessions_for(where_of(options))
    columns = (TextColumn("grading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, executor_of(options) as executor:
        bar = progress.add_task("", total=len(tasks))
        for graded in grade_all(tasks, executor):
            store.put(graded)
            found.append(graded)
            progress.advance(bar)
    return found


def table_of(
    intake: Intake,
    graded: list[Graded],
    lessons: dict[str, NotebookNode],
    options: argparse.Namespace,
) -> tables.ClassTable:
    """Every student with rows for every lesson, those not handed in too."""
    rows = {(one.student, one.lesson): list(one.rows) for one in graded}
    missing = {name: all_rows(name, lesson, NOT_SUBMITTED, "") for name, lesson in lessons.items()}
    by_student = {
        student: [r for name in lessons for r in rows.get((student.label, name), missing[name])]
        for student in intake.students
    }
    late: dict = {}
    for submission in intake.submissions if options.deadline else ():
        hours = (submission.modified - options.deadline) / 3600
        if hours > 0:
            late[submission.student] = max(hours, late.get(submission.student, 0))
    exercises = [row for own in missing.values() for row in own]
    points = tables.read_points(options.points, exercises)
    return tables.ClassTable(intake.students, by_student, points, late)


def notes_of(intake: Intake, table: tables.ClassTable) -> dict:
    """student -> lines about what was handed in."""
    notes: dict = {student: [] for student in intake.students}
    for submission in intake.submissions:
        if submission.note:
            notes[submission.student].append(f"{submission.lesson}: {submission.note}")
    for student, hours in table.late.items():
        notes[student].append(f"handed in {hours:.1f} hours after the deadline")
    return notes


def write(
    out: Path,
    intake: Intake,
    graded: list[Graded],
    table: tables.ClassTable,
    titles: dict[str, str],
    source: str,
) -> None:
    """All files for the teacher and the students."""
    notes = notes_of(intake, table)
    texts = {
        student: feedback(student, table.rows[student], table.points, titles, notes[student])
        for student in table.students
    }
    write_all(texts, out / "feedback")
    tables.write_csv(tables.grades(table), out / "grades.csv")
    for name, frame in (
        ("moodle", tables.moodle(table, texts)),
        ("canvas", tables.canvas(table)),
    ):
        if len(frame):
            tables.write_csv(frame, out / f"{name}.csv")
    signs = [(one.student, one.lesson, list(one.signs)) for one in graded if one.signs]
    flat = [(student.label, note) for student, own in notes.items() for note in own]
    page = pages.class_page(table, titles, "Class", source, sorted(signs), intake.problems, flat)
    (out / "index.html").write_text(page, encoding="utf-8")


def print_table(table: tables.ClassTable, console: Console) -> None:
    totals, maxima = table.totals(), table.maxima()
    grid = Table("student", title=None, box=None, header_style="bold", pad_edge=False)
    for lesson in totals.columns:
        grid.add_column(lesson.partition("_")[0], justify="right")
    grid.add_column(f"of {maxima.sum():g}", justify="right")
    for student in table.students:
        got = totals.loc[student.label]
        grid.add_row(Text(student.label), *(f"{value:g}" for value in got), f"{got.sum():g}")
    console.print(grid)


def show(out: Path, intake: Intake, table: tables.ClassTable, graded: list[Graded]) -> None:
    """The table, and what a person should know, on the terminal."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # Windows may not have every letter
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    print_table(table, console)
    rows: list[Row] = [row for student in table.students for row in table.rows[student]]
    console.print(Text(f"{len(table.students)} students, {summary(rows)}"))
    for path, problem in intake.problems:
        console.print(Text(f"not graded: {path}: {problem}"))
    notes = [(s.label, note) for s, own in notes_of(intake, table).items() for note in own]
    for name, note in notes:
        console.print(Text(f"{name}: {note}"))
    for one in sorted((o for o in graded if o.signs), key=lambda o: (o.student, o.lesson)):
        text = f"to look at by hand: {one.student}, {one.lesson}: {'; '.join(one.signs)}"
        console.print(Text(text))
    console.print(Text(f"written: {out}/grades.csv, index.html, feedback/ and more"))


def main(arguments: list[str] | None = None) -> int:
    options = (called := parser()).parse_args(arguments)
    console = Console(stderr=True, highlight=False)
    if not options.submissions.exists():
        called.error(f"there is no {options.submissions}")
    if options.jobs < 1 or not options.limit > 0:
        called.error("--jobs and --limit must be more than 0")
    try:
        lessons = chosen_lessons(options.lessons)
        exercises = [r for name, one in lessons.items() for r in all_rows(name, one, "", "")]
        tables.read_points(options.points, exercises)  # before the work, not after it
        options.out.mkdir(parents=True, exist_ok=True)
        with console.status("reading what was handed in"):
            intake = take_in(options.submissions, chosen_lessons(None))
        intake.submissions = [s for s in intake.submissions if s.lesson in lessons]
        if not intake.students:
            raise ValueError(f"no notebook of the course in {options.submissions}")
        with Store(options.out / "results.jsonl") as store:
            graded = run(intake.submissions, store, options, console)
    except KeyboardInterrupt:
        console.print("stopped; what is graded is kept, and the same call goes on from there")
        return 130
    except RuntimeError as error:
        called.error(
            f"no place to run submissions in: {error}. --container runs them in podman or "
            "docker, --trust with all your rights"
        )
    except (ValueError, OSError) as error:
        called.error(str(error))
    table = table_of(intake, graded, lessons, options)
    titles = {name: lesson_files.title_of(lesson) for name, lesson in lessons.items()}
    source = f"{options.submissions.resolve().name}, {time.strftime('%Y-%m-%d %H:%M')}"
    write(options.out, intake, graded, table, titles, source)
    show(options.out, intake, table, graded)
    return 0


if __name__ == "__main__":
    sys.exit(main())
