"""The students' notebooks for places with no course around them, such as Colab and Kaggle.

Each begins with a cell that installs the course where it is missing, and its links lead to the
repository. `python -m course.build --hosted DIR --repository URL` writes them.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course import lesson_files

INSTALL = """\
# Where the course is missing, as on Colab or Kaggle, this installs it; PyTorch stays as it is there
try:
    import course
except ModuleNotFoundError:
    import importlib.metadata, pathlib, tempfile

    keep = pathlib.Path(tempfile.gettempdir(), "keep.txt")
    have = {{d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}}
    names = [name for name in ("torch", "torchvision", "numpy") if name in have]
    keep.write_text("\\n".join(f"{{name}}=={{have[name]}}" for name in names))
    %pip install --quiet --constraint {{keep}} "{address}"
    importlib.invalidate_caches()"""


def install_cell(repository: str) -> NotebookNode:
    """The cell that installs the course from a repository: a web address or a path of a clone,
    with @BRANCH behind it where it is not the default one."""
    address = repository if "://" in repository else f"file://{repository}"
    source = INSTALL.format(address=f"git+{address}")
    return nbformat.v4.new_code_cell(source, id="install")


def relink(text: str, path: str, address: Callable[[str], str | None]) -> str:
    """Markdown that stands in the file `path`, its relative links leading where `address` says.

    address(path of a file in the repository) -> a link, or None: then only the words stay.
    """

    def replace(match):
        words, target, anchor = match.groups()
        link = address(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)))
        return words if link is None else f"[{words}]({link}{anchor or ''})"

    link = r"(?<!!)\[([^\]]*)\]\((?!https?:|#|mailto:)([\w./-]+)(#[\w-]+)?\)"
    return re.sub(link, replace, text)


def hosted_version(lesson: NotebookNode, name: str, repository: str) -> NotebookNode:
    """A lesson's notebook for a place of its own; `lesson` is what `read_lesson` gives.

    Without a repository it has no cell that installs the course, and no links into it.
    """
    notebook = lesson_files.student_version(lesson)
    web = repository.partition("@")[0].removesuffix(".git")

    def address(path):
        return f"{web}/blob/HEAD/{path}" if web.startswith("https://") else None

    del notebook.metadata["course"]  # it is not the one in notebooks/
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = cell.source.replace(lesson_files.PROGRESS, "")
            if repository:
                text = text.replace(lesson_files.ALONE, "")
            cell.source = relink(text, f"notebooks/{name}.ipynb", address)
    if repository:
        notebook.cells.insert(1, install_cell(repository))
    return notebook


def build(folder: Path, repository: str, root: Path = lesson_files.ROOT) -> None:
    """Writes the notebooks of all lessons to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((root / "lessons").glob("*.py")):
        notebook = hosted_version(lesson_files.read_lesson(path), path.stem, repository)
        lesson_files.write(notebook, folder / f"{path.stem}.ipynb")
