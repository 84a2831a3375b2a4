"""The course's own notebooks: built from the lessons, and what a student meets in them.

The solutions themselves are run by nbval: `pytest` collects solutions/ too.
"""

import ast
import re

import nbformat
import pytest
from nbclient import NotebookClient

from course import build, lesson_files

LESSONS = [path.stem for path in sorted((lesson_files.ROOT / "lessons").glob("*.py"))]


def student_notebook(lesson):
    """The student's notebook, with its training runs of more than 20 steps cut to two."""

    def short(match):
        return match[0] if int(match[1]) <= 20 else "steps=2"

    notebook = nbformat.read(lesson_files.ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"\bsteps=(\d+)", short, cell.source)
    return notebook


def test_notebooks_and_solutions_are_what_the_lessons_give():
    assert build.drift() == [], "run `make build`"


@pytest.mark.parametrize("lesson", LESSONS)
def test_form_of_a_lesson(lesson):
    source = lesson_files.read_lesson(lesson_files.ROOT / "lessons" / f"{lesson}.py")
    student = lesson_files.student_version(source)
    first_code = next(cell for cell in student.cells if cell.cell_type == "code")
    assert first_code.source.startswith("FULL = False")
    for cell in student.cells:
        if cell.cell_type != "code":
            continue
        ast.parse(cell.source.replace(";\n", "\n"))
        assert len(cell.source.splitlines()) <= 30, f"{cell.id} is long"
        assert "SOLUTION" not in cell.source
        if cell.id.startswith("exercise-"):
            assert "TODO" in cell.source
            assert "# your code here" in cell.source
    text = "\n".join(cell.source for cell in student.cells if cell.cell_type == "markdown")
    exercises = re.findall(r"^#+ Exercise \d+ · .+ \((\d+) min, [★☆]{3}\)$", text, re.MULTILINE)
    assert len(exercises) == sum(cell.id.startswith("check-") for cell in student.cells)
    assert text.count("<details>") == text.count("</details>") >= len(exercises)
    ids = [cell.id for cell in student.cells]
    assert len(set(ids)) == len(ids)


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_unfilled_notebook_runs_and_every_check_says_not_attempted(lesson):
    notebook = student_notebook(lesson)
    folder = {"metadata": {"path": str(lesson_files.ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=300, resources=folder).execute()  # goes on by their tags
    for cell in notebook.cells:
        errors = [o for o in cell.get("outputs", []) if o.output_type == "error"]
        if cell.id.startswith("check-"):
            assert [error.ename for error in errors] == ["NotAttempted"], cell.id
            shown = "\n".join(errors[0].traceback)
            assert "not attempted yet" in shown
            assert len(shown.splitlines()) == 1  # no traceback
        else:
            assert errors == [], f"{cell.id} fails: {cell.source}"


@pytest.mark.parametrize("lesson", LESSONS)
def test_solution_shows_a_pass_at_every_check_and_no_error(lesson):
    notebook = nbformat.read(lesson_files.ROOT / "solutions" / f"{lesson}.ipynb", as_version=4)
    assert any(cell.id.startswith("check-") for cell in notebook.cells)
    for cell in notebook.cells:
        if cell.id.startswith("check-"):
            assert cell.outputs[0].text.startswith("✓ "), cell.id
        assert not [o for o in cell.get("outputs", []) if o.output_type == "error"], cell.id
        assert not [o for o in cell.get("outputs", []) if o.get("name") == "stderr"], cell.id
        shown = [kind for o in cell.get("outputs", []) for kind in o.get("data", {})]
        assert not [kind for kind in shown if "widget" in kind], f"{cell.id}: nobody can move it"
