"""How far a student is: `python -m course.progress`, or `make progress`.

Runs the exercises and checks of every lesson's notebook, nothing else, each lesson in a kernel of
its own, and says what became of each exercise. Cells between them that the lesson brought are left
out, so that nothing trains; cells that the student added run. Exit code: 0 all passed, 1 something
fails, 3 nothing fails but something is not attempted yet, 2 wrong call.
"""

import argparse
import ast
import html
import json
import re
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from course import build

PASSED, FAILING, NOT_ATTEMPTED = "passed", "failing", "not attempted"
MARKS = {PASSED: "✓", FAILING: "✗", NOT_ATTEMPTED: "○"}
LIMIT = 60  # seconds a cell


@dataclass
class Row:
    """What became of one exercise; `message` is empty where it passed."""

    lesson: str
    exercise: str
    outcome: str = FAILING
    message: str = ""


@dataclass
class Exercise:
    """An exercise of a lesson: its title, the ids of its cells, and the call that checks it."""

    title: str
    cells: tuple[str, ...]
    check: str

    @property
    def answer(self):
        return self.check.partition("(")[2].rstrip(")")

    @property
    def call(self):
        return self.check.partition("(")[0]


@dataclass
class Step:
    """A cell to run, and the exercise that it belongs to or that it checks."""

    source: str
    exercise: Exercise | None = None
    is_check: bool = False


def exercises_of(lesson):
    """A lesson's exercises in order; `lesson` is what `build.read_lesson` gives."""
    found, title, cells = [], "", []
    for cell in lesson.cells:
        heading = re.search(r"^### Exercise \d+ · (.+?) \(", cell.source, re.MULTILINE)
        title = heading[1] if heading else title
        if cell.id.startswith("exercise-"):
            cells.append(cell.id)
        elif cell.id.startswith("check-"):
            found.append(Exercise(title, tuple(cells), cell.source))
            cells = []
    return found


def plan(notebook, lesson):
    """The steps of a student's notebook: imports, then exercises, own cells and checks in order.

    A check is known by its call, whatever its cell's id; one that is not there is added behind the
    last cell. Exercises are known by their id, or by the name that they define.
    """
    exercises = exercises_of(lesson)
    lessons_own = {cell.id for cell in lesson.cells}
    first = next(cell for cell in lesson.cells if cell.cell_type == "code")
    steps, unchecked = [Step(imports_of(first.source))], list(exercises)
    for cell in notebook.cells:
        if cell.cell_type != "code" or cell.id == first.id:
            continue
        calls = [e for e in unchecked if f"{e.call}(" in cell.source]
        exercise = next((e for e in exercises if cell.id in e.cells or defines(cell, e)), None)
        if exercise or (cell.id not in lessons_own and not calls):
            steps.append(Step(cell.source, exercise))
        for exercise in calls:
            unchecked.remove(exercise)
            steps.append(Step(exercise.check, exercise, is_check=True))
    return steps + [Step(e.check, e, is_check=True) for e in unchecked]


def imports_of(source):
    """The import statements of a cell, so that no data is loaded."""
    body = ast.parse(source).body
    return "\n".join(ast.unparse(n) for n in body if isinstance(n, ast.Import | ast.ImportFrom))


def defines(cell, exercise):
    return re.search(rf"^(class|def) {exercise.answer}\b", cell.source, re.MULTILINE)


class Kernel:
    """A kernel that runs cells one by one, each for at most `limit` seconds."""

    def __init__(self, folder, limit):
        self.client = NotebookClient(
            nbformat.v4.new_notebook(),
            timeout=limit,
            allow_errors=True,
            resources={"metadata": {"path": str(folder)}},
        )

    @contextmanager
    def running(self):
        with self.client.setup_kernel():
            yield self

    def run(self, source):
        """The error output of the cell, or None. Raises CellTimeoutError and DeadKernelError."""
        cell = nbformat.v4.new_code_cell(source)
        self.client.nb.cells = [cell]
        self.client.execute_cell(cell, 0)
        return next((o for o in cell.outputs if o.output_type == "error"), None)


def run_lesson(name, path, lesson, limit=LIMIT):
    """The rows of one lesson. Never raises for what a notebook holds or does."""
    exercises = exercises_of(lesson)
    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:
        return [Row(name, e.title, FAILING, f"there is no {path.name}") for e in exercises]
    except Exception as error:  # no JSON, no notebook, no text: nbformat raises many things
        message = f"{path.name} cannot be read: {type(error).__name__}"
        return [Row(name, e.title, FAILING, message) for e in exercises]
    steps = plan(notebook, lesson)
    outcomes = {}  # title -> (outcome, message)
    passed_over = set()  # steps that hung or took the kernel with them
    while not _run_steps(steps, path.parent, limit, passed_over, outcomes):
        pass  # a fresh kernel, without the step that broke the last one
    return [Row(name, e.title, *outcomes[e.title]) for e in exercises]


def _run_steps(steps, folder, limit, passed_over, outcomes):
    """Runs the steps in one kernel; False where it was lost on the way."""
    failed = {}  # title -> what went wrong in a cell of the exercise
    with Kernel(folder, limit).running() as kernel:
        for number, step in enumerate(steps):
            title = step.exercise.title if step.exercise else ""
            if number in passed_over or (step.is_check and title in outcomes):
                continue
            try:
                error = kernel.run(step.source)
            except (CellTimeoutError, DeadKernelError) as lost:
                passed_over.add(number)
                if title:
                    outcomes[title] = FAILING, _loss(lost, limit)
                return False
            if step.is_check:
                outcomes[title] = _verdict(step, error, failed.get(title))
            elif error and title:
                failed[title] = f"{error.ename}: {error.evalue.splitlines()[0]}"
    return True


def _loss(error, limit):
    if isinstance(error, CellTimeoutError):
        return f"ran longer than {limit:g} s and was stopped: is there an endless loop?"
    return "the kernel died in this exercise's cell: a crash, or os._exit?"


def _verdict(step, error, failed):
    """The outcome of a check and one line about it."""
    if error is None:
        return PASSED, ""
    lines = error.evalue.splitlines() or [""]
    if error.ename == "NotAttempted":
        return NOT_ATTEMPTED, lines[0].removeprefix("○ ")
    if error.ename == "CheckFailed":
        rows = dict(re.findall(r"^  (expected|came|likely) +(.*)$", error.evalue, re.MULTILINE))
        came = f"expected {rows.get('expected', '')}, came {rows.get('came', '')}"
        return FAILING, failed or rows.get("likely") or came
    if failed:
        return FAILING, failed
    if error.ename == "NameError" and step.exercise.answer in lines[0]:
        return FAILING, f"the notebook has no {step.exercise.answer}: was its cell deleted?"
    return FAILING, f"{error.ename}: {lines[0]}"


def table(rows):
    """The rows as text, a line each, aligned."""
    width = max((len(row.exercise) for row in rows), default=0)
    lines = []
    for number, row in enumerate(rows):
        if number == 0 or rows[number - 1].lesson != row.lesson:
            lines.append(row.lesson)
        line = f"  {MARKS[row.outcome]} {row.exercise:{width}}  {row.outcome:13}  {row.message}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def summary(rows):
    count = {outcome: sum(row.outcome == outcome for row in rows) for outcome in MARKS}
    parts = [f"{number} {outcome}" for outcome, number in count.items() if number]
    return f"{len(rows)} exercises: {', '.join(parts)}"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Progress</title>
<meta name="color-scheme" content="light dark">
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
         padding: 0 1rem }}
  table {{ border-collapse: collapse; width: 100% }}
  th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884;
           vertical-align: top }}
</style>
<h1>Progress</h1>
<p>{summary}</p>
<table>
<tr><th>Lesson<th>Exercise<th>Outcome<th>Message
{rows}
</table>
</html>
"""


def page(rows):
    """The rows as an HTML page."""
    lines = []
    for row in rows:
        cells = (row.lesson, row.exercise, f"{MARKS[row.outcome]} {row.outcome}", row.message)
        lines.append("<tr>" + "".join(f"<td>{html.escape(text)}" for text in cells))
    return PAGE.format(summary=summary(rows), rows="\n".join(lines))


def main(arguments=None):
    lessons = {path.stem: path for path in sorted((build.ROOT / "lessons").glob("*.py"))}
    parser = argparse.ArgumentParser(
        prog="python -m course.progress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("lessons", nargs="*", help="such as 02_cnn_stem_hybrid (default: all)")
    work = build.ROOT / "work"
    parser.add_argument(
        "--folder",
        type=Path,
        default=work if work.is_dir() else build.ROOT / "notebooks",
        help="where the notebooks are (default: work/, or notebooks/ where there is none)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
    parser.add_argument("--limit", type=float, default=LIMIT, help=f"seconds a cell ({LIMIT})")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.lessons if name not in lessons]
    if unknown:
        parser.error(f"there is no lesson {unknown[0]}; there are {', '.join(lessons)}")
    if not options.folder.is_dir():
        parser.error(f"there is no folder {options.folder}")
    rows = []
    for name in options.lessons or lessons:
        started = time.perf_counter()
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        lesson = build.read_lesson(lessons[name])
        rows += run_lesson(name, options.folder / f"{name}.ipynb", lesson, options.limit)
        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    if options.html:
        options.html.write_text(page(rows), encoding="utf-8")
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        print(f"{table(rows)}\n{summary(rows)}")
    outcomes = {row.outcome for row in rows}
    return 1 if FAILING in outcomes else 3 if NOT_ATTEMPTED in outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
