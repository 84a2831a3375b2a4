"""A lesson's cells, its versions and its exercises; where things are.

A lesson is a script in jupytext's percent format. Its solutions stand between nbgrader's markers,
### BEGIN SOLUTION and ### END SOLUTION. The student's notebook gets a placeholder there, the
solution notebook the code, executed.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).parents[1]
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def read_lesson(path):
    """A lesson's cells as a notebook, markers included, each with the id it keeps.

    Raises ValueError for an exercise without a check, a check of more than one line, or markers
    that do not pair.
    """
    notebook = jupytext.read(path, fmt="py:percent")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    exercises = []  # cells that wait for their check, which names them
    for place, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = {"tags": tags} if tags else {}
        cell.id = f"cell-{place:02d}"
        if "exercise" in tags:
            exercises.append(cell)
        elif "check" in tags:
            call = re.fullmatch(r"check\.(\w+)\([\w, ]+\)", cell.source)
            if not call or not exercises:
                raise ValueError(f"{path.name}: not a check of an exercise: {cell.source!r}")
            name = call[1].replace("_", "-")
            cell.id = f"check-{name}"
            for number, waiting in enumerate(exercises, start=1):
                waiting.id = f"exercise-{name}" + (f"-{number}" if number > 1 else "")
            exercises = []
        if cell.source.count(BEGIN) != cell.source.count(END):
            raise ValueError(f"{path.name}: {BEGIN} without {END}, in {cell.source!r}")
    if exercises:
        raise ValueError(f"{path.name}: an exercise has no check: {exercises[0].source!r}")
    return notebook


def student_version(lesson):
    """The lesson with placeholders for its solutions, and a mark to tell an edited file by."""
    notebook = nbformat.from_dict(lesson)
    for cell in notebook.cells:
        cell.source = _with_placeholders(cell.source)
    notebook.metadata["course"] = {"built": fingerprint(notebook)}
    return notebook


def _with_placeholders(source):
    kept, inside = [], False
    for line in source.splitlines():
        if line.strip() == BEGIN:
            inside = True
            indent = line[: len(line) - len(line.lstrip())]
            code = [line for line in kept if line.strip() and not line.lstrip().startswith("#")]
            # Within brackets a value belongs, elsewhere a statement.
            value = bool(code) and code[-1].rstrip().endswith(("(", "[", ","))
            kept.append(f"{indent}{'...' if value else 'pass'}  # your code here")
        elif line.strip() == END:
            inside = False
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def solution_version(lesson):
    """The lesson with its solutions, without their markers, not yet executed."""
    notebook = nbformat.from_dict(lesson)
    for cell in notebook.cells:
        lines = cell.source.splitlines()
        cell.source = "\n".join(line for line in lines if line.strip() not in (BEGIN, END))
    return notebook


def sources(notebook):
    """What a person can edit: id, kind and text of each cell."""
    return [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]


def fingerprint(notebook):
    """A hash of all that a person can edit, to tell whether somebody did."""
    return hashlib.sha256(repr(sources(notebook)).encode()).hexdigest()[:16]


def edited_by_hand(path):
    """True where a built notebook no longer is what was built."""
    if not path.exists():
        return False
    notebook = nbformat.read(path, as_version=4)
    return notebook.metadata.get("course", {}).get("built") != fingerprint(notebook)


def clear_outputs(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def write(notebook, path):
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")


@dataclass(frozen=True)
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


def exercises_of(lesson):
    """A lesson's exercises in order; `lesson` is what `lesson_files.read_lesson` gives."""
    found, title, cells = [], "", []
    for cell in lesson.cells:
        heading = re.search(r"^#+ Exercise \d+ · (.+?) \(", cell.source, re.MULTILINE)
        title = heading[1].replace("`", "") if heading else title
        if cell.id.startswith("exercise-"):
            cells.append(cell.id)
        elif cell.id.startswith("check-"):
            found.append(Exercise(title, tuple(cells), cell.source))
            cells = []
    return found
