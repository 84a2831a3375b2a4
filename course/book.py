"""Makes the book, a website from the executed solutions: `python -m course.book`, or `make book`.

Nothing is run and no network is needed: outputs are those in solutions/, mathematics is set by a
MathJax that is a Python package. The pages' sources are gathered in build/book/source, where
solutions and hints are folded and links lead from page to page.
"""

import argparse
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import nbformat

from course import hosted, lesson_files
from course.lesson_files import ROOT

# Repository files that are pages as they stand: where each goes
TEXTS = {
    "CONTRIBUTING.md": "maintainers.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks/README.md",
    "benchmarks/recipe.md": "benchmarks/recipe.md",
    "benchmarks/robustness.md": "benchmarks/robustness.md",
}
FOLDED = {"code_prompt_show": "Show a solution", "code_prompt_hide": "Hide the solution"}


def page_of(path):
    """The page in the book that shows a file of the repository, or None."""
    path = PurePosixPath(path)
    if str(path) in TEXTS:
        return TEXTS[str(path)]
    if str(path) == "README.md":
        return "index.md"
    if path.parts[0] == "book":
        return path.name
    if path.parts[0] in ("lessons", "notebooks", "solutions") and path.suffix:
        return f"lessons/{path.stem}.ipynb"
    if path.suffix == ".py" and path.parts[0] in ("vit.py", "coatnet", "course"):
        return f"api/{module_of(path)}.md"
    return None


def module_of(path):
    """coatnet/hybrid.py -> coatnet.hybrid; coatnet/__init__.py -> coatnet"""
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def in_book(text, path, page, repository):
    """Markdown of the file `path` for a page: links lead to pages, or else to the repository."""

    def address(target):
        found = page_of(target)
        if found:
            return posixpath.relpath(found, posixpath.dirname(page) or ".")
        return f"{repository}/blob/HEAD/{target}" if repository else None

    return hosted.relink(text, path, address)


def page(solution, lesson, path, repository):
    """A lesson's page: its solution, with each exercise still open above the answer."""
    student = {cell.id: cell for cell in lesson_files.student_version(lesson).cells}
    cells = []
    for cell in solution.cells:
        if cell.id == "way-on":  # the theme has its own links to the next and the last page
            continue
        if cell.cell_type == "markdown":
            text = cell.source.replace(lesson_files.ALONE, "")
            cell.source = in_book(text, path, page_of(path), repository)
        if cell.id.startswith("exercise-"):
            stub = nbformat.v4.new_code_cell(student[cell.id].source, id=f"open-{cell.id}")
            cells.append(stub)
            tags = [*cell.metadata.get("tags", []), "hide-input"]
            prompt = {
                "code_prompt_show": "Show a solution",
                "code_prompt_hide": "Hide the solution",
            }
            cell.metadata.update(tags=tags, mystnb=prompt)
        for output in cell.get("outputs", []):
            alt = output.get("metadata", {}).get("image/png", {}).get("alt")
            if alt:
                cell.metadata["mystnb"] = {"image": {"alt": alt}}
        cells.append(cell)
    return nbformat.from_dict({**solution, "cells": cells})


def write_modules(source):
    """A page for every module of vit, coatnet and course, made from its docstrings."""
    (source / "api").mkdir()
    modules = [
        ROOT / "vit.py",
        *sorted(ROOT.glob("coatnet/**/*.py")),
        *sorted(ROOT.glob("course/**/*.py")),
    ]
    for path in modules:
        name = module_of(path.relative_to(ROOT).as_posix())
        text = f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n"
        (source / "api" / f"{name}.md").write_text(text, encoding="utf-8")


def gather(source, repository):
    """Writes all that Sphinx needs to the folder `source`, which it makes anew."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "book", source)
    for path in sorted((ROOT / "book").glob("*.md")):
        text = in_book(path.read_text(encoding="utf-8"), f"book/{path.name}", path.name, repository)
        (source / path.name).write_text(text, encoding="utf-8")
    for path, target in TEXTS.items():
        (source / target).parent.mkdir(exist_ok=True)
        text = in_book((ROOT / path).read_text(encoding="utf-8"), path, target, repository)
        (source / target).write_text(text, encoding="utf-8")
    for picture in (ROOT / "benchmarks").glob("*.png"):
        shutil.copy2(picture, source / "benchmarks")
    (source / "lessons").mkdir()
    for script in sorted((ROOT / "lessons").glob("*.py")):
        path = f"solutions/{script.stem}.ipynb"
        solution = nbformat.read(ROOT / path, as_version=4)
        made = page(solution, lesson_files.read_lesson(script), path, repository)
        lesson_files.write(made, source / page_of(path))
    write_modules(source)
    hosted.build(source / "downloads" / "notebooks", repository)


def origin():
    """The web address that this clone comes from; "" where it comes from no website."""
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # there is no git
        return ""
    found = re.sub(r"^(ssh://)?git@([^:/]+)[:/]", r"https://\2/", found).removesuffix(".git")
    return found if found.startswith("https://") else ""


def main(arguments=None):
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
    options = parser.parse_args(arguments)
    try:
        from sphinx.cmd.build import main as sphinx
    except ModuleNotFoundError:
        sys.exit("the book needs Sphinx: pip install -e '.[dev]', or `make book`, which does that")
    source = ROOT / "build" / "book" / "source"
    gather(source, options.repository)
    failed = sphinx(
        ["-q", "-j", "auto", "-D", f"repository={options.repository}", str(source), str(options.to)]
    )
    if not failed:
        print(f"The book is {options.to / 'index.html'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
