"""The lessons as nbgrader takes them: its metadata in every cell of an exercise and its check.

See https://nbgrader.readthedocs.io, "Creating and grading assignments" and "nbgrader_config.py".
A solution region becomes `...`, which stands for a statement and for a value alike, so that the
checks say "not attempted" there.
"""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course import lesson_files
from course.classroom.results import Row
from course.classroom.tables import Points
from course.lesson_files import exercises_of

SCHEMA = 3
CONFIG = '''"""What nbgrader needs to know; the course itself must be found, as by PYTHONPATH."""

c = get_config()
c.CourseDirectory.course_id = "coatnet"
c.CourseDirectory.root = {root!r}
c.ClearSolutions.code_stub = {{"python": "...  # your code here"}}
c.ExecutePreprocessor.timeout = 600
'''


def write(folder: Path, points: Points, root: Path = lesson_files.ROOT) -> list[Path]:
    """Writes folder/source/LESSON/LESSON.ipynb for every lesson, and folder/nbgrader_config.py."""
    written = []
    for path in sorted((root / "lessons").glob("*.py")):
        notebook = with_metadata(path.stem, lesson_files.read_lesson(path), points)
        target = folder / "source" / path.stem / f"{path.stem}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        lesson_files.write(notebook, target)
        written.append(target)
    config = CONFIG.format(root=str(folder.resolve()))
    (folder / "nbgrader_config.py").write_text(config, encoding="utf-8")
    return written


def with_metadata(name: str, lesson: NotebookNode, points: Points) -> NotebookNode:
    """A lesson whose exercises are nbgrader's solution cells, and whose checks its locked tests."""
    notebook = nbformat.from_dict(lesson)
    worth = {
        f"check-{exercise.name}": points.of(Row(name, exercise.number, exercise.title))
        for exercise in exercises_of(lesson)
    }
    for cell in notebook.cells:
        if cell.id.startswith("exercise-"):
            cell.metadata["nbgrader"] = _metadata(cell.id, solution=True)
        elif cell.id in worth:
            cell.metadata["nbgrader"] = {
                **_metadata(cell.id, grade=True, locked=True),
                "points": worth[cell.id],
            }
    return notebook


def _metadata(cell_id, grade=False, solution=False, locked=False):
    return {
        "grade": grade,
        "grade_id": cell_id,
        "locked": locked,
        "schema_version": SCHEMA,
        "solution": solution,
        "task": False,
    }
