"""How far a student is: `python -m course.progress`, or `make progress`.

Runs the exercises and checks of every lesson's notebook and says what became of each exercise. The
student's own cells run too; of the lesson's other cells only what an exercise uses, so that nothing
trains and no data is loaded. A cell that runs too long is stopped and costs only its own exercise.
For a class there is `python -m course.grade`.

Exit code: 0 all passed; 1 something fails; 3 nothing fails, but something is not attempted yet;
2 wrong call; 130 stopped by Ctrl-C.
"""

import argparse
import io
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from nbformat import NotebookNode
from rich.console import Console
from rich.table import Table
from rich.text import Text

from course import lesson_files
from course.classroom import pages
from course.classroom.engine import LIMIT, run_file, trusted_sessions
from course.classroom.planning import lesson_of
from course.classroom.results import (
    FAILING,
    MARKS,
    NOT_ATTEMPTED,
    NOT_SUBMITTED,
    PASSED,
    Row,
    counts,
    summary,
)
from course.lesson_files import ROOT

COLOURS = {PASSED: "green", FAILING: "red", NOT_ATTEMPTED: "yellow", NOT_SUBMITTED: "dim"}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m course.progress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "lessons",
        nargs="*",
        help="such as 02_cnn_stem_hybrid, or 2 for short, or a notebook's file (default: all)",
    )
    made.add_argument(
        "--folder",
        type=Path,
        default=ROOT / "work" if (ROOT / "work").is_dir() else ROOT / "notebooks",
        help="where the notebooks are (default: work/, or notebooks/ where there is none)",
    )
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    made.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
    made.add_argument("--summary", type=Path, metavar="FILE", help="also add a table in Markdown")
    made.add_argument(
        "--limit",
        type=float,
        default=LIMIT,
        metavar="SECONDS",
        help=f"after which a cell is stopped (default: {LIMIT})",
    )
    return made


def chosen(names: list[str], lessons: dict[str, NotebookNode], folder: Path) -> dict[str, Path]:
    """The notebook of each lesson asked for. Raises ValueError, with what to do instead."""
    files = {}
    for name in names:
        if name.endswith(".ipynb"):
            path = Path(name)
            try:
                notebook = lesson_files.read_notebook(path)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise ValueError(f"{name} cannot be read: {reason}") from None
            found = lesson_of(notebook, lessons, path.name)
            if not found:
                raise ValueError(f"{name} has no exercise of the course")
            files[found] = path
            continue
        number = f"{int(name):02d}" if name.isascii() and name.isdigit() else name
        fitting = [one for one in lessons if one == name or one.startswith(f"{number}_")]
        if len(fitting) != 1:
            raise ValueError(f"there is no lesson {name}; there are {', '.join(lessons)}")
        files[fitting[0]] = folder / f"{fitting[0]}.ipynb"
    files = {name: files[name] for name in lessons if name in files}
    return files or {name: folder / f"{name}.ipynb" for name in lessons}


def renamed(
    files: dict[str, Path], lessons: dict[str, NotebookNode], folder: Path
) -> tuple[dict[str, Path], list[str]]:
    """`files`, with the newest copy under another name where one is missing; and notes."""
    found, others, notes = {}, [], []
    for path in sorted(folder.glob("*.ipynb"), key=lambda path: path.stat().st_mtime):
        if path.stem in lessons:
            continue
        try:
            name = lesson_of(lesson_files.read_notebook(path), lessons, path.name)
        except (OSError, ValueError):
            name = ""
        if name in files and not files[name].exists():
            found[name] = path
        else:
            others.append(path.name)
    notes += [f"{name}: {path.name} stands for it" for name, path in sorted(found.items())]
    if others:
        notes.append(f"passed over, as no lesson is called so: {', '.join(sorted(others))}")
    return {**files, **found}, notes


def print_table(rows: list[Row], titles: dict[str, str], console: Console) -> None:
    """The rows, by lesson, aligned; messages wrap in their own column."""
    width = max(len(f"{row.number} · {row.exercise}") for row in rows) + 2
    for name in dict.fromkeys(row.lesson for row in rows):
        own = [row for row in rows if row.lesson == name]
        passed = counts(own).get(PASSED, 0)
        heading = f"{name.partition('_')[0]} · {titles[name] or name}"
        console.print(Text(f"{heading}  {passed} of {len(own)}", style="bold"))
        grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=True)
        grid.add_column(min_width=width + 2, no_wrap=True)
        grid.add_column(min_width=13, no_wrap=True)
        grid.add_column(overflow="fold")
        for row in own:
            mark = Text(f"  {MARKS[row.outcome]} ", style=COLOURS[row.outcome])
            text = mark.append(f"{row.number} · {row.exercise}", style="default")
            grid.add_row(text, Text(row.outcome, style=COLOURS[row.outcome]), Text(row.message))
        console.print(grid)
    console.print(Text(summary(rows)))


def markdown(rows: list[Row]) -> str:
    """The rows as a table, for the summary of a job on GitHub."""
    lines = [f"### Progress: {summary(rows)}", "", "| | exercise | | |", "|---|---|---|---|"]
    for row in rows:
        message = row.message.replace("|", "\\|").replace("<", "&lt;")
        place = f"{row.lesson.partition('_')[0]}.{row.number}"
        line = f"| {place} | {row.exercise} | {MARKS[row.outcome]} {row.outcome} | {message} |"
        lines.append(line)
    return "\n".join(lines) + "\n\n"


def run(
    files: dict[str, Path], lessons: dict[str, NotebookNode], limit: float, notes: list[str]
) -> list[Row]:
    """The rows of all files, said to the terminal as they come."""
    rows = []
    with trusted_sessions([lessons[name] for name in files]) as sessions:
        for name, path in files.items():
            started = time.perf_counter()
            print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
            new = run_file(name, path, lessons[name], sessions, limit)
            rows += new
            passed = counts(new).get(PASSED, 0)
            seconds = time.perf_counter() - started
            print(f"{passed} of {len(new)} passed, {seconds:.0f} s", file=sys.stderr)
    print("".join(f"{note}\n" for note in notes), end="", file=sys.stderr)
    return rows


def write(path: Path, text: str, mode: str = "w") -> None:
    try:
        with path.open(mode, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:  # and the rows are still to be shown
        print(f"cannot write {path}: {error.strerror}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    options = (called := parser()).parse_args(arguments)
    folder = options.folder
    if not folder.is_dir():
        called.error(f"there is no folder {folder}")
    if not options.limit > 0:
        called.error("--limit must be more than 0 seconds")
    if options.html and (options.html.is_dir() or not options.html.parent.is_dir()):
        called.error(f"cannot write {options.html}: it is a folder, or in none that exists")
    if not any(folder.glob("*.ipynb")) and any(folder.glob("*/*.ipynb")):
        called.error(f"{folder} holds folders of notebooks; for a class: course.grade {folder}")
    try:
        paths = sorted((ROOT / "lessons").glob("*.py"))
        lessons = {path.stem: lesson_files.read_lesson(path) for path in paths}
        files, notes = renamed(chosen(options.lessons, lessons, folder), lessons, folder)
    except ValueError as error:
        called.error(str(error))
    try:
        rows = run(files, lessons, options.limit, notes)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    titles = {name: lesson_files.title_of(lesson) for name, lesson in lessons.items()}
    if options.html:
        source = f"{folder.resolve()}, {time.strftime('%Y-%m-%d %H:%M')}"
        write(options.html, pages.progress_page(rows, titles, source))
    if options.summary:
        write(options.summary, markdown(rows), "a")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # Windows may have no ✓
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        console = console if console.is_terminal else Console(highlight=False, width=400)
        print_table(rows, titles, console)
    outcomes = {row.outcome for row in rows}
    if FAILING in outcomes:
        return 1
    return 3 if outcomes & {NOT_ATTEMPTED, NOT_SUBMITTED} else 0


if __name__ == "__main__":
    sys.exit(main())
