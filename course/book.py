"""Makes the book, a website from the executed solutions: `python -m course.book`, or `make book`.

Nothing is run and no network is needed: outputs are those in solutions/, mathematics is set by a
MathJax that is a Python package. The pages' sources are gathered in build/book/source, where
solutions are folded and links lead from page to page; Sphinx does the rest.
"""

import argparse
import functools
import importlib.util
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import nbformat
from nbformat import NotebookNode

from course import hosted, lesson_files
from course.lesson_files import ROOT

TEXTS = {  # files of the repository that are pages: where each goes
    "CONTRIBUTING.md": "maintainers.md",
    "CHANGELOG.md": "changelog.md",
    "course/classroom/README.md": "grading.md",
    **{f"benchmarks/{p.name}": f"benchmarks/{p.name}" for p in ROOT.glob("benchmarks/*.md")},
}
LAYOUT = re.compile(r"\b[CT](-[CT]){3}\b")  # such as C-C-T-T, which no line may break
FOLDED = {"code_prompt_show": "Show a solution", "code_prompt_hide": "Hide the solution"}


def page_of(path: str) -> str | None:
    """The page in the book that shows a file of the repository, or None."""
    parts = PurePosixPath(path).parts
    if parts[0] == "book":
        return parts[-1]
    if parts[0] in ("lessons", "notebooks", "solutions") and len(parts) == 2:
        return f"lessons/{PurePosixPath(path).stem}.ipynb"
    package = str(PurePosixPath(path).with_name("__init__.py"))
    for module in (path, package) if parts[0] == "course" and len(parts) > 2 else (path,):
        if ROOT / module in described():
            return f"api/{module_of(module)}.md"
    return "index.md" if path == "README.md" else TEXTS.get(path)


@functools.cache
def described() -> list[Path]:
    """The modules that have a page: the models', and what notebooks and shells name of the course.
    A package has one for all that it gives; the checks and the grader's inner rooms have none."""
    found = [*ROOT.glob("vit.py"), *ROOT.glob("coatnet/*.py"), *ROOT.glob("course/*.py")]
    found += ROOT.glob("course/*/__init__.py")
    return sorted(p for p in found if p.parent.name not in ("checks", "classroom"))


def module_of(path: str) -> str:
    """coatnet/hybrid.py -> coatnet.hybrid; coatnet/__init__.py -> coatnet"""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def in_book(text: str, path: str, page: str, repository: str) -> str:
    """Markdown of the file `path` for a page: links lead to pages, or else to the repository."""

    def address(target: str) -> str | None:
        found = page_of(target)
        if found:
            return posixpath.relpath(found, posixpath.dirname(page) or ".")
        return f"{repository}/blob/HEAD/{target}" if repository else None

    return hosted.relink(text, path, address)


def lesson_page(path: Path, repository: str) -> NotebookNode:
    """A lesson's page: its solution, with each exercise still open above the folded answer.

    path: the lesson's script.
    """
    lesson = lesson_files.read_lesson(path)
    student = {cell.id: cell for cell in lesson_files.student_version(lesson).cells}
    where = f"solutions/{path.stem}.ipynb"
    solution = nbformat.read(ROOT / where, as_version=4)
    cells = []
    for cell in solution.cells:
        if cell.id == "way-on":  # the theme has its own links to the next and the last page
            continue
        if cell.cell_type == "markdown":
            text = cell.source.replace(lesson_files.ALONE, "")
            text = LAYOUT.sub(lambda layout: layout[0].replace("-", "\u2011"), text)
            cell.source = in_book(text, where, f"lessons/{path.stem}.ipynb", repository)
        if cell.id.startswith("exercise-"):
            cells.append(nbformat.v4.new_code_cell(student[cell.id].source, id=f"open-{cell.id}"))
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
            cell.metadata["mystnb"] = FOLDED
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt:
                cell.metadata["mystnb"] = {"image": {"alt": alt}}
        cells.append(cell)
    return nbformat.from_dict({**solution, "cells": cells})


def gather(source: Path, repository: str) -> None:
    """Writes all that Sphinx needs to the folder `source`, which it makes anew."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "book", source)
    for folder in ("api", "benchmarks", "lessons"):
        (source / folder).mkdir()
    own = {f"book/{path.name}": path.name for path in (ROOT / "book").glob("*.md")}
    for path, page in {**TEXTS, **own}.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        (source / page).write_text(in_book(text, path, page, repository), encoding="utf-8")
    for picture in (ROOT / "benchmarks").glob("*.png"):
        shutil.copy2(picture, source / "benchmarks")
    for script in sorted((ROOT / "lessons").glob("*.py")):
        made = lesson_page(script, repository)
        lesson_files.write(made, source / "lessons" / f"{script.stem}.ipynb")
    for module in described():
        name = module_of(module.relative_to(ROOT).as_posix())
        # What coatnet gives is described on the pages of its modules
        members = "no-members" if name == "coatnet" else "members"
        text = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n   :{members}:\n```\n"
        (source / "api" / f"{name}.md").write_text(text, encoding="utf-8")
    hosted.build(source / "downloads" / "notebooks", repository)


def origin() -> str:
    """The web address that this clone comes from; "" where it comes from no website."""
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # there is no git
        return ""
    found = re.sub(r"^(ssh://)?git@([^:/]+)[:/]", r"https://\2/", found).removesuffix(".git")
    return found if found.startswith("https://") else ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m course.book",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "book" / "html", metavar="DIR")
    parser.add_argument(
        "--repository",
        default=origin(),
        metavar="URL",
        help="where the buttons lead (default: where this clone comes from, %(default)r)",
    )
    parser.add_argument("--strict", action="store_true", help="fail where Sphinx warns; for tests")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("sphinx") is None:
        parser.error("Sphinx is missing: `make book` installs it, or pip install -e '.[dev]'")
    source = ROOT / "build" / "book" / "source"
    gather(source, options.repository)
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-j", "auto"]
    settings = ["-D", f"repository={options.repository}", *["-W"] * options.strict]
    made = subprocess.run([*sphinx, *settings, str(source), str(options.to)], check=False)
    if made.returncode == 0:
        print(f"the book: {options.to / 'index.html'}")
    return made.returncode


if __name__ == "__main__":
    sys.exit(main())
