"""What `build --nbgrader` writes is taken by nbgrader itself, which scores a submission right.

nbgrader is installed in an environment of its own: it is no part of the course's.
"""

import ast
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import nbformat
import pytest

from course import lesson_files
from course.classroom import nbgrader
from course.classroom.planning import imports_of
from course.classroom.tables import Points
from tests.checks.harness import exercise_cells

VERSION = "0.9.6"
NAME = "02_cnn_stem_hybrid"


def read(path):
    return nbformat.read(path, as_version=4)


def test_exercises_are_solution_cells_and_checks_locked_tests_with_points(tmp_path):
    written = nbgrader.write(tmp_path, Points({(NAME, "1"): 3.0}))
    lessons = sorted(path.stem for path in (lesson_files.ROOT / "lessons").glob("*.py"))
    assert [path.stem for path in written] == lessons
    for path in written:
        notebook = read(path)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            graded = cell.metadata.get("nbgrader", {})
            assert bool(graded) == cell.id.startswith(("exercise-", "check-"))
            assert graded.get("solution", False) == cell.id.startswith("exercise-")
            assert graded.get("locked", False) == cell.id.startswith("check-")
            assert ("BEGIN SOLUTION" in cell.source) == graded.get("solution", False)
    cells = {cell.id: cell for cell in read(tmp_path / "source" / NAME / f"{NAME}.ipynb").cells}
    assert cells["check-cnn-stem"].metadata.nbgrader.points == 3
    assert cells["check-coatnet-hybrid"].metadata.nbgrader.points == 1


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A Python that has nbgrader, and finds the course's own packages too."""
    given = os.environ.get("NBGRADER_PYTHON")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("nbgrader")
    try:
        venv.create(folder, with_pip=True)
        python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        command = [python, "-m", "pip", "install", "-q", f"nbgrader=={VERSION}"]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"nbgrader cannot be installed here: {error}")
    return python


@pytest.mark.slow
def test_nbgrader_scores_a_submission(tmp_path, environment):
    """Exercise 1 solved, worth 3; exercise 2 still open, worth 1: 3 of 4 points."""
    nbgrader.write(tmp_path, Points({(NAME, "1"): 3.0}))
    kernels = tmp_path / "kernels" / "python3"  # submissions run in the course's own Python
    kernels.mkdir(parents=True)
    kernel = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
    }
    (kernels / "kernel.json").write_text(json.dumps(kernel))
    settings = {
        **os.environ,
        "PATH": f"{environment.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
        "JUPYTER_PATH": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }

    def run(*arguments):
        code = (
            "import os, sys; from nbgrader.apps.nbgraderapp import main; "
            f"sys.argv[1:] = {list(arguments)!r}; main()"
        )
        # The kernel, not nbgrader, is to find the course
        done = subprocess.run(
            [environment, "-c", code],
            cwd=tmp_path,
            env=settings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    run("generate_assignment", NAME, "--create")
    lesson = lesson_files.read_lesson(lesson_files.ROOT / "lessons" / f"{NAME}.py")
    path = f"import sys\nsys.path.insert(0, {str(lesson_files.ROOT)!r})\n"
    imports = path + "\n".join(ast.unparse(line) for line in imports_of(lesson))
    released = read(tmp_path / "release" / NAME / f"{NAME}.ipynb")
    text = "\n".join(cell.source for cell in released.cells)
    assert "SOLUTION" not in text
    assert text.count("...  # your code here") == text.count("your code here") > 2
    for cell in released.cells:
        if cell.id == "exercise-cnn-stem":
            cell.source = exercise_cells(NAME)["cnn-stem"]
        elif cell.cell_type == "code" and "nbgrader" not in cell.metadata:
            cell.source = imports if cell.source.startswith("FULL") else ""  # no training
    submitted = tmp_path / "submitted" / "alice" / NAME / f"{NAME}.ipynb"
    submitted.parent.mkdir(parents=True)
    nbformat.write(released, submitted)
    run("autograde", NAME, "--create")
    run("export")
    header, row = (line.split(",") for line in (tmp_path / "grades.csv").read_text().splitlines())
    scores = dict(zip(header, row, strict=True))
    assert (float(scores["score"]), float(scores["max_score"])) == (3.0, 4.0)
