"""How far a student is: `python -m course.progress`, or `make progress`.

Runs the exercises and checks of every lesson's notebook, each lesson in a kernel of its own, and
says what became of each exercise. The student's own cells run too; of the lesson's other cells only
what an exercise uses, so that nothing trains and no data is loaded. A cell that runs too long is
stopped and costs only its own exercise.

Exit code: 0 all passed; 1 something fails; 3 nothing fails, but something is not attempted yet;
2 wrong call; 130 stopped by Ctrl-C.
"""

import argparse
import ast
import html
import json
import os
import queue
import re
import subprocess
import symtable
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_client.manager import KernelManager

from course import lesson_files
from course.lesson_files import Exercise, exercises_of

PASSED, FAILING, NOT_ATTEMPTED = "passed", "failing", "not attempted"
MARKS = {PASSED: "✓", FAILING: "✗", NOT_ATTEMPTED: "○"}
LIMIT = 60  # seconds a cell
STARTING = 120  # seconds for a kernel to start, and for the lesson's imports: disks can be slow
GRACE = 5  # seconds in which an interrupted cell must end, or its kernel goes


@dataclass
class Row:
    """What became of one exercise; `message` is one line, empty where there is nothing to say."""

    lesson: str
    exercise: str
    outcome: str = FAILING
    message: str = ""


@dataclass
class Step:
    """Code to run, and the exercise that it answers, stands below or, `is_check`, checks.

    `answers`: it is a cell of the exercise, not only one between its cell and its check.
    `note`: what a teacher should know of a check, whatever it says.
    """

    source: str
    exercise: Exercise | None = None
    answers: bool = False
    is_check: bool = False
    note: str = ""


def plan(notebook, lesson):
    """The steps of a student's notebook: the lesson's imports, then what it holds, in its order.

    A check is known by its call, whatever its cell's id, and runs even where its cell is missing.
    An exercise is known by its id or by the name that it defines, a cell of the lesson by its id or
    its text.
    """
    exercises = exercises_of(lesson)
    ids = {cell.id for cell in lesson.cells}
    texts = {cell.source.strip() for cell in lesson_files.student_version(lesson).cells}
    imports = [ast.unparse(statement) for statement in imports_of(lesson)]
    steps = [Step("\n".join(imports))]
    the_checks = next((line for line in imports if "check" in names(line)[0]), "")
    cells = [(cell.id, *without_checks(cell.source, exercises)) for cell in code_cells(notebook)]
    unchecked = [e for e in exercises if not any(e is c for _, _, calls in cells for c, _ in calls)]
    begun = []  # exercises whose cells have come, in order

    def check(exercise, call, note=""):
        # With the lesson's own checks, whatever the notebook has made of their name
        steps.append(Step(f"{the_checks}\n{call}", exercise, is_check=True, note=note))

    def check_those_without(until=None):
        for exercise in [e for e in begun if e in unchecked and e is not until]:
            unchecked.remove(exercise)
            check(
                exercise, exercise.check, "its check is missing from the notebook, and ran anyway"
            )

    lessons_cells = []  # pairs of a place in steps and a statement there
    for cell_id, source, calls in cells:
        exercise = next((e for e in exercises if cell_id in e.cells), None) or next(
            (e for e in exercises if defines(source, e.answer)), None
        )
        if exercise:
            check_those_without(until=exercise)
            begun = [e for e in begun if e is not exercise] + [exercise]
            steps.append(Step(source, exercise, answers=True))
        elif cell_id in ids or source.strip() in texts:
            lessons_cells += [(len(steps), s) for s in statements(source) if s not in imports]
        elif source.strip():
            steps.append(Step(source, begun[-1] if begun else None))
        for checked, call in calls:
            check_those_without(until=checked)
            other = "" if call == checked.check else f"the notebook checks it with {call}"
            check(checked, call, other)
            begun = [e for e in begun if e is not checked]
    check_those_without()
    for exercise in unchecked:
        check(exercise, exercise.check)
    for place, statement in reversed(used_by_exercises(lessons_cells, steps, exercises)):
        steps.insert(place, Step(statement))
    return steps


def imports_of(lesson):
    """The import statements of a lesson's first cell, which also loads data."""
    first = next(cell for cell in lesson.cells if cell.cell_type == "code")
    return [n for n in ast.parse(first.source).body if isinstance(n, ast.Import | ast.ImportFrom)]


def code_cells(notebook):
    """The code cells; those of a damaged file may lack an id or a text."""
    for cell in notebook.cells:
        if cell.get("cell_type") == "code":
            source = cell.get("source")
            cell_id = str(cell.get("id", ""))
            yield nbformat.from_dict({"id": cell_id, "source": source if source else ""})


def plain(source):
    """A cell as Python alone, without IPython's magics."""
    return TransformerManager().transform_cell(source)


def without_checks(source, exercises):
    """A cell without its check calls, and these as pairs of exercise and call."""
    try:
        body = ast.parse(plain(source)).body
    except (SyntaxError, ValueError):  # it will say so when it runs
        return source, [(e, e.check) for e in exercises if f"{e.call}(" in source]
    found, kept = [], []
    for statement in body:
        # Also in a try: a check whose failure nobody sees would seem to pass
        calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
        calls = [(e, n) for n in calls for e in exercises if ast.unparse(n.func) == e.call]
        for exercise, node in calls:
            as_written = node.args and all(isinstance(a, ast.Name) for a in node.args)
            found.append((exercise, ast.unparse(node) if as_written else exercise.check))
        if not calls:
            kept.append(statement)
    return ("\n".join(map(ast.unparse, kept)), found) if found else (source, [])


def defines(source, name):
    """True where a cell defines the name, also where a slip keeps it from being read as Python."""
    pattern = rf"^(class|def) {name}\b"
    return name in names(source)[0] or bool(re.search(pattern, source, re.MULTILINE))


def statements(source):
    """The statements of a cell, each as text; none where it is no Python."""
    try:
        return [ast.unparse(statement) for statement in ast.parse(plain(source)).body]
    except (SyntaxError, ValueError):
        return []


def names(source):
    """The global names that code binds, and those that it uses from elsewhere."""
    try:
        table = symtable.symtable(plain(source), "cell", "exec")
    except (SyntaxError, ValueError):
        return set(), set()
    symbols = table.get_symbols()
    bound = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    used, tables = set(), [table]
    while tables:
        inner = tables.pop()
        used |= {s.get_name() for s in inner.get_symbols() if s.is_global() or inner is table}
        tables += inner.get_children()
    return bound, used - bound


def used_by_exercises(lessons_cells, steps, exercises):
    """Those of the lesson's own statements that make what the exercises use, at any remove."""
    needed = {exercise.answer for exercise in exercises}
    for step in steps:
        if step.answers:
            needed |= names(step.source)[1]
    found = [names(step.source) for step in steps[1:] if not step.is_check]
    found += [names(statement) for _, statement in lessons_cells]
    size = 0
    while size < len(needed):
        size = len(needed)
        for bound, used in found:
            if bound & needed:
                needed |= used
    return [(place, text) for place, text in lessons_cells if names(text)[0] & needed]


@dataclass
class Failure:
    """How a cell ended: the exception's name and message. Without a name it did not end by itself,
    but was stopped or took the kernel with it."""

    name: str
    message: str


class Kernel:
    """A kernel in `folder` that runs code piece by piece, each for a limited time.

    Its output goes nowhere: nothing here reads it, and there may be a lot.
    """

    def __init__(self, folder):
        self.manager = KernelManager(kernel_name="python3")
        paths = [str(lesson_files.ROOT), os.environ.get("PYTHONPATH", "")]
        self.settings = {
            "cwd": str(folder),
            "env": {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL),
        }

    def __enter__(self):
        """Raises RuntimeError where the kernel does not start."""
        self.manager.start_kernel(**self.settings)
        self.client = self.manager.client()
        try:
            self.client.start_channels()
            self.client.wait_for_ready(timeout=STARTING)
        except BaseException:
            self.__exit__()
            raise
        # exit() would end the kernel a little later, in some other exercise's cell
        self.run("get_ipython().ask_exit = __import__('sys').exit", STARTING)
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, source, limit):
        """None where the code ran through, else its Failure."""
        request = self.client.execute(
            source, store_history=False, allow_stdin=False, stop_on_error=False
        )
        reply = self._reply(request, limit)
        if reply:
            return Failure(reply["ename"], reply["evalue"]) if reply["status"] == "error" else None
        if not self.manager.is_alive():
            return Failure("", "the kernel died here: a crash, or os._exit?")
        self.manager.interrupt_kernel()
        if not self._reply(request, GRACE):
            self.manager.shutdown_kernel(now=True)
        return Failure(
            "", f"ran longer than {limit:g} s and was stopped: is there an endless loop?"
        )

    def _reply(self, request, limit):
        """What the kernel says to a request; None where it says nothing in time, or is dead."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            try:
                reply = self.client.get_shell_msg(timeout=0.2)
            except queue.Empty:
                if not self.manager.is_alive():
                    return None
                continue
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"]
        return None


def run_lesson(name, path, lesson, limit=LIMIT):
    """The rows of one lesson. Never raises for what a notebook holds or does."""
    exercises = exercises_of(lesson)

    def all_rows(message):
        return [Row(name, e.title, FAILING, message) for e in exercises]

    try:
        with warnings.catch_warnings(action="ignore"):  # of missing ids, for example
            notebook = nbformat.read(path, as_version=4)
        steps = plan(notebook, lesson)
    except FileNotFoundError:
        return all_rows(f"there is no {path.name}")
    except Exception as error:  # no JSON, no notebook, no text: nbformat raises many things
        return all_rows(f"{path.name} cannot be read: {type(error).__name__}")
    try:
        verdicts = run_steps(steps, path.parent, limit)
    except (RuntimeError, NoSuchKernel) as error:
        return all_rows(first_line(str(error)))
    return [Row(name, e.title, *verdicts[e]) for e in exercises]


def run_steps(steps, folder, limit):
    """The outcome and message of each exercise. Where a step costs the kernel, the steps are run
    again in a fresh one without it.

    Raises RuntimeError where no kernel starts, or the lesson's imports fail.
    """
    verdicts, done = {}, set()
    troubles = {}  # (exercise, in its cells or below them) -> the first failure there
    while True:
        lost = False
        with Kernel(folder) as kernel:
            for number, step in enumerate(steps):
                # A cell that hangs or crashes fails its exercise, whatever the check would say
                over = step.exercise in verdicts and verdicts[step.exercise][2]
                if number in done or (over and step.is_check):
                    continue
                failure = kernel.run(step.source, limit if number else STARTING)
                if failure and number == 0:
                    raise RuntimeError(f"the lesson's imports fail: {said(failure)}")
                if step.is_check:
                    done.add(number)
                    verdicts[step.exercise] = *verdict(step, failure, troubles), False
                elif failure and step.answers and not failure.name:
                    verdicts[step.exercise] = FAILING, failure.message, True
                elif failure and step.exercise:
                    troubles.setdefault((step.exercise, step.answers), said(failure))
                if failure and not failure.name:
                    done.add(number)  # not twice
                    lost = not kernel.manager.is_alive()
                if lost:
                    break
        if not lost:
            return {exercise: (outcome, text) for exercise, (outcome, text, _) in verdicts.items()}


def verdict(step, failure, troubles):
    """The outcome of a check and one line about it."""
    in_answer = troubles.get((step.exercise, True))
    if failure is None:
        return PASSED, step.note
    if failure.name == "NotAttempted":
        outcome, message = NOT_ATTEMPTED, first_line(failure.message).removeprefix("○ ")
        if in_answer:
            outcome, message = FAILING, in_answer
    elif failure.name == "CheckFailed":
        outcome, message = FAILING, gist(failure.message)
    elif failure.name == "NameError" and f"'{step.exercise.answer}'" in failure.message:
        missing = f"the notebook has no {step.exercise.answer}: was its cell deleted?"
        outcome, message = FAILING, in_answer or missing
    else:
        outcome, message = FAILING, said(failure)
    below = troubles.get((step.exercise, False))
    below = below and f"a cell below it fails: {below}"
    return outcome, "; ".join(filter(None, (message, below, step.note)))


def gist(message):
    """The most useful line of what a failed check says."""
    rows = dict(re.findall(r"^  (expected|came|likely) +(.*)$", message, re.MULTILINE))
    came = f"expected {rows.get('expected', '')}, came {rows.get('came', '')}"
    return first_line(rows.get("likely") or came)


def said(failure):
    """A failure in one line."""
    if failure.name == "StdinNotImplementedError":
        return "it waits for input(), and nobody is there to type"
    # IPython names the cell by a file that nobody knows
    text = re.sub(
        r"\(\S+\.py, line (\d+)\)$", r"(line \1 of its cell)", first_line(failure.message)
    )
    return ": ".join(filter(None, (failure.name, text)))


def first_line(text):
    """The first line with something in it, without colours and at a length that fits a table."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).encode("utf-8", "replace").decode()
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = "".join(letter if letter.isprintable() else " " for letter in line)
    return line if len(line) <= 300 else f"{line[:299]}…"


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
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Progress</title>
<style>
  :root {{ color-scheme: light dark }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto;
         padding: 0 1rem }}
  table {{ border-collapse: collapse; width: 100% }}
  th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884;
           vertical-align: top }}
  td:nth-child(3) {{ white-space: nowrap }}
  td:nth-child(4) {{ overflow-wrap: anywhere }}
  .passed td:nth-child(3) {{ color: light-dark(#1a7f37, #56d364) }}
  .failing td:nth-child(3) {{ color: light-dark(#b42318, #ff8a80) }}
</style>
<h1>Progress</h1>
<p>{summary}</p>
<table>
<tr><th>Lesson<th>Exercise<th>Outcome<th>Message
{rows}
</table>
</html>
"""


def page(rows, source=""):
    """The rows as an HTML page that needs no other file; `source`: where and when they are from."""
    lines = []
    for row in rows:
        cells = (row.lesson, row.exercise, f"{MARKS[row.outcome]} {row.outcome}", row.message)
        columns = "".join(f"<td>{html.escape(text)}" for text in cells)
        lines.append(f'<tr class="{row.outcome.replace(" ", "-")}">{columns}')
    described = html.escape(". ".join(filter(None, (summary(rows), source))))
    return PAGE.format(summary=described, rows="\n".join(lines))


def main(arguments=None):
    paths = {path.stem: path for path in sorted((lesson_files.ROOT / "lessons").glob("*.py"))}
    parser = argparse.ArgumentParser(
        prog="python -m course.progress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "lessons", nargs="*", help="such as 02_cnn_stem_hybrid, or 02 for short (default: all)"
    )
    work = lesson_files.ROOT / "work"
    parser.add_argument(
        "--folder",
        type=Path,
        default=work if work.is_dir() else lesson_files.ROOT / "notebooks",
        help="where the notebooks are (default: work/, or notebooks/ where there is none)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        metavar="SECONDS",
        help=f"after which a cell is stopped (default: {LIMIT})",
    )
    options = parser.parse_args(arguments)
    chosen = {}
    for name in options.lessons:
        found = [stem for stem in paths if stem == name or stem.startswith(f"{name}_")]
        if len(found) != 1:
            parser.error(f"there is no lesson {name}; there are {', '.join(paths)}")
        chosen[found[0]] = paths[found[0]]
    if not options.folder.is_dir():
        parser.error(f"there is no folder {options.folder}")
    if not options.limit > 0:
        parser.error("--limit must be more than 0 seconds")
    if options.html and (options.html.is_dir() or not options.html.parent.is_dir()):
        parser.error(f"cannot write {options.html}: it is a folder, or in none that exists")
    try:
        lessons = {name: lesson_files.read_lesson(path) for name, path in (chosen or paths).items()}
    except ValueError as error:
        parser.error(str(error))
    rows = []
    try:
        for name, lesson in lessons.items():
            started = time.perf_counter()
            print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
            new = run_lesson(name, options.folder / f"{name}.ipynb", lesson, options.limit)
            rows += new
            seconds = time.perf_counter() - started
            passed = sum(row.outcome == PASSED for row in new)
            print(f"{passed} of {len(new)} passed, {seconds:.0f} s", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    others = sorted(p.name for p in options.folder.glob("*.ipynb") if p.stem not in paths)
    if others:
        print(f"passed over, as no lesson is called so: {', '.join(others)}", file=sys.stderr)
    if options.html:
        source = f"{options.folder.resolve()}, {time.strftime('%Y-%m-%d %H:%M')}"
        try:
            options.html.write_text(page(rows, source), encoding="utf-8")
        except OSError as error:  # and the rows are still to be shown
            print(f"cannot write {options.html}: {error.strerror}", file=sys.stderr)
    sys.stdout.reconfigure(errors="replace")  # Windows may have no ✓
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        print(f"{table(rows)}\n{summary(rows)}")
    outcomes = {row.outcome for row in rows}
    return 1 if FAILING in outcomes else 3 if NOT_ATTEMPTED in outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
