"""A lesson's cells, its versions and its exercises; where things are.

A lesson is a script in jupytext's percent format. Its solutions stand between nbgrader's markers,
### BEGIN SOLUTION and ### END SOLUTION. The student's notebook gets a placeholder there, the
solution notebook the code, executed.
"""

import copy
import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
MARKER = re.compile(  # what may have been meant as one of them
    r"(#.*\b(begin|start|end|stop)(\W|_)*((of|the)(\W|_)*)*solutions?\b)"
    r"|(#.*\bsolutions?(\W|_)*(begin|start|end|stop)s?\b)|(^\s*#{3,}\s*solution)",
    re.IGNORECASE,
)
KERNEL: dict = {  # all that JupyterLab would add by itself, but for Python's version
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}
ALONE = """

<sub>This notebook needs the course around it. If the next cell says `No module named 'course'`,
open it with `make learn`, or run `%pip install git+ADDRESS` first, with the address of the course's
repository.</sub>"""
PROGRESS = "\n\nWhat is passed, and what is still to do: `make progress` in a terminal."


def read_lesson(path: Path) -> NotebookNode:
    """A lesson's cells as a notebook, markers included, each with the id it keeps.

    Raises ValueError for an exercise without a check, a check of more than one line, or markers
    that do not pair.
    """
    text = path.read_text(encoding="utf-8-sig")  # with a mark, its first heading would be code
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata = copy.deepcopy(KERNEL)
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
        _require_markers(path.name, cell.source)
    if exercises:
        raise ValueError(f"{path.name}: an exercise has no check: {exercises[0].source!r}")
    notebook.cells[0].source += ALONE
    notebook.cells.append(nbformat.v4.new_markdown_cell(way_on(path), id="way-on"))
    return notebook


def _require_markers(name, source):
    """What marks a solution must do so to the letter, or the solution would be in the exercise."""
    inside = False
    for line in source.splitlines():
        if line.strip() in (BEGIN, END):
            if inside == (line.strip() == BEGIN):
                raise ValueError(f"{name}: {BEGIN} without {END}, or one in another, in {source!r}")
            inside = not inside
        elif MARKER.search(line):
            raise ValueError(f"{name}: {line.strip()!r} must be {BEGIN} or {END}, and nothing else")
    if inside:
        raise ValueError(f"{name}: {BEGIN} without {END}, in {source!r}")


def heading(path: Path) -> str:
    """A lesson's title: its first heading."""
    found = re.search(r"^# # (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else path.stem


def way_on(path: Path) -> str:
    """The end of each lesson: the lessons before and after it, its solution, one's progress."""
    lessons = sorted(path.parent.glob("*.py"))
    place = lessons.index(path)
    links = []
    if place > 0:
        before = lessons[place - 1]
        links.append(f"← [{heading(before)}]({before.stem}.ipynb)")
    links.append(f"[The solution](../solutions/{path.stem}.ipynb)")
    if place + 1 < len(lessons):
        after = lessons[place + 1]
        links.append(f"[{heading(after)}]({after.stem}.ipynb) →")
    return f"---\n\n{' · '.join(links)}{PROGRESS}"


def student_version(lesson: NotebookNode) -> NotebookNode:
    """The lesson with placeholders for its solutions, and a mark to tell an edited file by."""
    notebook = nbformat.from_dict(lesson)
    for cell in notebook.cells:
        cell.source = _with_placeholders(cell.source)
        if cell.id.startswith("check-"):  # so that Run All goes on below an open exercise
            cell.metadata["tags"] = [*cell.metadata["tags"], "raises-exception"]
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


def solution_version(lesson: NotebookNode) -> NotebookNode:
    """The lesson with its solutions, without their markers, not yet executed."""
    notebook = nbformat.from_dict(lesson)
    for cell in notebook.cells:
        lines = cell.source.splitlines()
        cell.source = "\n".join(line for line in lines if line.strip() not in (BEGIN, END))
    last = notebook.cells[-1]
    last.source = last.source.replace(
        "[The solution](../solutions/", "[The exercises](../notebooks/"
    )
    return notebook


def this_python(notebook: NotebookNode) -> None:
    """Gives a notebook the version of the Python that runs, as JupyterLab does when it opens one.

    Without it each notebook would count as changed as soon as it is opened.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    notebook.metadata["language_info"] = {**KERNEL["language_info"], "version": version}


def sources(notebook: NotebookNode) -> list[tuple[str, str, str]]:
    """What a person can edit: id, kind and text of each cell."""
    return [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]


def fingerprint(notebook: NotebookNode) -> str:
    """A hash of all that a person can edit, to tell whether somebody did."""
    return hashlib.sha256(repr(sources(notebook)).encode()).hexdigest()[:16]


def edited_by_hand(path: Path) -> bool:
    """True where a built notebook no longer is what was built."""
    if not path.exists():
        return False
    notebook = nbformat.read(path, as_version=4)
    return notebook.metadata.get("course", {}).get("built") != fingerprint(notebook)


def clear_outputs(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def write(notebook: NotebookNode, path: Path) -> None:
    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")


@dataclass(frozen=True)
class Exercise:
    """An exercise: its number and title, its cells' ids, and the call that checks it."""

    number: str
    title: str
    cells: tuple[str, ...]
    check: str

    @property
    def name(self) -> str:
        """Such as "cnn-stem", as in the ids of its cells."""
        return self.call.removeprefix("check.").replace("_", "-")

    @property
    def answer(self) -> str:
        return self.check.partition("(")[2].rstrip(")")

    @property
    def call(self) -> str:
        return self.check.partition("(")[0]


def exercises_of(lesson: NotebookNode) -> list[Exercise]:
    """A lesson's exercises in order; `lesson` is what `lesson_files.read_lesson` gives."""
    found, number, title, cells = [], "", "", []
    for cell in lesson.cells:
        heading = re.search(r"^#+ Exercise (\d+) · (.+?) \(", cell.source, re.MULTILINE)
        if heading:
            number, title = heading[1], heading[2].replace("`", "")
        if cell.id.startswith("exercise-"):
            cells.append(cell.id)
        elif cell.id.startswith("check-"):
            found.append(Exercise(number, title, tuple(cells), cell.source))
            cells = []
    return found


def title_of(lesson: NotebookNode) -> str:
    """A lesson's heading without "Lesson 2 · ", or "" where it has none."""
    heading = re.search(r"^# (?:Lesson \d+ · )?(.+)$", lesson.cells[0].source, re.MULTILINE)
    return heading[1].strip() if heading else ""


LARGEST = 50_000_000  # bytes of a notebook: pictures may be pasted into it


def read_notebook(path: Path) -> NotebookNode:
    """A person's notebook, whatever has been done to it: format 4.5, every cell with its text.

    Cells without an id keep none. Raises ValueError, with the reason in a few words, for what is no
    notebook, and OSError.
    """
    if path.stat().st_size > LARGEST:
        raise ValueError(f"larger than {LARGEST // 1_000_000} MB")
    return parse_notebook(path.read_bytes())


def parse_notebook(data: bytes) -> NotebookNode:
    """As `read_notebook`, of the file's bytes."""
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        found = json.loads(text)
    except UnicodeDecodeError:
        raise ValueError("no text in UTF-8") from None
    except (ValueError, RecursionError):
        marked = re.search(r"^<{7}( |$)", text, re.MULTILINE)
        raise ValueError(
            "it holds git's marks of a merge conflict, such as <<<<<<<"
            if marked
            else "an empty file"
            if not text.strip()
            else "no JSON, as a notebook is"
        ) from None
    if not isinstance(found, dict):
        raise ValueError("JSON, but no notebook")
    if "worksheets" in found:  # format 3 and before
        try:
            return nbformat.reads(text, as_version=4)
        except Exception as error:  # nbformat raises many things
            raise ValueError(f"no notebook: {type(error).__name__}") from None
    if not isinstance(found.get("cells"), list):
        raise ValueError("JSON, but no notebook: it has no cells")
    metadata = found.get("metadata")
    return nbformat.from_dict(
        {
            "cells": [_repaired(cell) for cell in found["cells"] if isinstance(cell, dict)],
            "metadata": metadata if isinstance(metadata, dict) else {},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    )


def _repaired(cell):
    """A cell with all that the format wants, but for an id that nobody gave it."""
    kind = cell.get("cell_type")
    kind = kind if kind in ("code", "markdown", "raw") else "raw"
    metadata, cell_id = cell.get("metadata"), cell.get("id")
    whole = {
        "cell_type": kind,
        "metadata": metadata if isinstance(metadata, dict) else {},
        "source": _joined(cell.get("source")).replace("\r\n", "\n").replace("\r", "\n"),
    }
    if isinstance(cell_id, str) and re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell_id):
        whole["id"] = cell_id
    if isinstance(cell.get("attachments"), dict) and kind != "code":
        whole["attachments"] = cell["attachments"]  # pasted pictures
    if kind == "code":
        outputs, count = cell.get("outputs"), cell.get("execution_count")
        whole["outputs"] = outputs if isinstance(outputs, list) else []
        whole["execution_count"] = count if isinstance(count, int) else None
    return whole


def _joined(source):
    """A text that may be kept as a list of lines."""
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""
