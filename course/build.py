"""Builds notebooks/ and solutions/ from lessons/: `python -m course.build`, or `make build`.

A lesson is a script in jupytext's percent format. Its solutions stand between nbgrader's markers,
### BEGIN SOLUTION and ### END SOLUTION. The student's notebook gets a placeholder there, the
solution notebook the code, executed. (Not nbgrader's own tool: it knows one placeholder only, and
adds a grader's panels to every student's JupyterLab. For those who grade with it: --nbgrader.)
"""

import argparse
import copy
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from course import hosted
from course.classroom import nbgrader
from course.classroom.results import Row
from course.classroom.tables import read_points
from course.lesson_files import (
    ROOT,
    clear_outputs,
    edited_by_hand,
    exercises_of,
    read_lesson,
    solution_version,
    student_version,
    write,
)

CELL_TIMEOUT = 900  # seconds, against runaways alone: FULL runs are not built


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Runs all cells in a fresh kernel in `folder`, keeping their outputs.

    Raises nbclient's CellExecutionError where a cell fails.
    """
    metadata = copy.deepcopy(notebook.metadata)
    NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        record_timing=False,  # times of day, which change in every run
        coalesce_streams=True,  # what a progress bar overwrote is gone, as on a screen
        resources={"metadata": {"path": str(folder)}},
    ).execute(env={**os.environ, "COURSE_STATIC": "1"})  # nobody is there to move a slider
    notebook.metadata = metadata  # nbclient adds this machine's version of Python


def drift(root: Path = ROOT) -> list[str]:
    """The notebooks and solutions that differ from what their lessons give, as messages."""
    found = []
    lessons = sorted((root / "lessons").glob("*.py"))
    for path in lessons:
        lesson = read_lesson(path)
        for folder, version in (("notebooks", student_version), ("solutions", solution_version)):
            built = root / folder / f"{path.stem}.ipynb"
            if not built.exists():
                found.append(f"{folder}/{built.name} is missing")
                continue
            notebook = nbformat.read(built, as_version=4)
            if folder == "solutions":
                clear_outputs(notebook)
            if notebook != version(lesson):
                found.append(f"{folder}/{built.name} is not what lessons/{path.name} gives")
    names = {path.stem for path in lessons}
    for folder in ("notebooks", "solutions"):
        for built in sorted((root / folder).glob("*.ipynb")):
            if built.stem not in names:
                found.append(f"{folder}/{built.name} has no lesson")
    return found


def build(
    root: Path = ROOT, names: Sequence[str] = (), execute_all: bool = False, force: bool = False
) -> None:
    """Writes notebooks/ and solutions/; runs the solutions whose code is new, changed or asked for.

    Raises FileExistsError rather than overwrite a student's notebook that somebody edited.
    """
    chosen = [p for p in sorted((root / "lessons").glob("*.py")) if not names or p.stem in names]
    unknown = set(names) - {path.stem for path in chosen}
    if unknown:
        raise ValueError(f"no lesson is called {', '.join(sorted(unknown))}")
    for folder in ("notebooks", "solutions"):
        (root / folder).mkdir(exist_ok=True)
    for path in chosen:
        lesson = read_lesson(path)
        target = root / "notebooks" / f"{path.stem}.ipynb"
        if edited_by_hand(target) and not force:
            raise FileExistsError(
                f"{target.relative_to(root)} holds edits that are not in {path.relative_to(root)}: "
                "move it away to keep them, or build with --force to lose them"
            )
        write(student_version(lesson), target)
        solution, target = solution_version(lesson), root / "solutions" / f"{path.stem}.ipynb"
        if not execute_all and target.exists() and keep_outputs(solution, target):
            print(f"{path.stem}: code unchanged, outputs kept")
        else:
            print(f"{path.stem}: running the solution ...", end=" ", flush=True)
            started = time.perf_counter()
            execute(solution, target.parent)
            print(f"{time.perf_counter() - started:.0f} s")
        write(solution, target)


def keep_outputs(solution: NotebookNode, path: Path) -> bool:
    """Gives `solution` the outputs that stand in `path`; False where they are of other code."""
    code, before = (
        [cell for cell in notebook.cells if cell.cell_type == "code"]
        for notebook in (solution, nbformat.read(path, as_version=4))
    )
    if [cell.source for cell in code] != [cell.source for cell in before]:
        return False
    for cell, old in zip(code, before, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return True


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m course.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("names", nargs="*", help="lessons to build, such as 01_vit (default: all)")
    made.add_argument("--check", action="store_true", help="write nothing; exit 1 on differences")
    made.add_argument("--execute", action="store_true", help="run every solution, changed or not")
    made.add_argument("--force", action="store_true", help="overwrite notebooks edited by hand")
    made.add_argument(
        "--nbgrader", type=Path, metavar="DIR", help="write a course for nbgrader, and nothing else"
    )
    made.add_argument(
        "--points", type=Path, metavar="FILE", help="for nbgrader: lines of lesson,exercise,points"
    )
    made.add_argument(
        "--hosted", type=Path, metavar="DIR", help="write notebooks for Colab and Kaggle there"
    )
    made.add_argument("--repository", metavar="URL", help="where those install the course from")
    return made


def main() -> None:
    options = (called := parser()).parse_args()
    if bool(options.hosted) != bool(options.repository):
        called.error("--hosted DIR and --repository URL go together")
    if options.hosted:
        hosted.build(options.hosted, options.repository)
        print(f"written to {options.hosted}: notebooks that install the course themselves")
        return
    if options.check:
        found = drift()
        sys.exit("\n".join([*found, "run `make build`"]) if found else 0)
    try:
        if options.nbgrader:
            for path in write_for_nbgrader(options.nbgrader, options.points):
                print(path)
        else:
            build(names=options.names, execute_all=options.execute, force=options.force)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


def write_for_nbgrader(folder: Path, points_file: Path | None) -> list[Path]:
    """Raises ValueError for a line of points that names no exercise."""
    lessons = {path.stem: read_lesson(path) for path in sorted((ROOT / "lessons").glob("*.py"))}
    exercises = [
        Row(name, exercise.number, exercise.title)
        for name, lesson in lessons.items()
        for exercise in exercises_of(lesson)
    ]
    return nbgrader.write(folder, read_points(points_file, exercises))


if __name__ == "__main__":
    main()
