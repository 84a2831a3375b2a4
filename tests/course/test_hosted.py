"""Notebooks for places that have no course around them: Colab, Kaggle, an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest

from course import hosted, lesson_files
from course.lesson_files import ROOT, read_lesson, student_version

URL = "https://github.com/somebody/a-fork"
NAME = "04_relative_attention"


@pytest.fixture(scope="module")
def lesson():
    return read_lesson(ROOT / "lessons" / f"{NAME}.py")


def texts(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_the_first_code_cell_installs_the_course(lesson):
    notebook = hosted.hosted_version(lesson, NAME, URL)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert f'"git+{URL}"' in first.source
    rest = [cell.source for cell in notebook.cells if cell.cell_type == "code"][1:]
    assert rest == [c.source for c in student_version(lesson).cells if c.cell_type == "code"]
    nbformat.validate(notebook)


def test_links_lead_to_the_repository(lesson):
    text = texts(hosted.hosted_version(lesson, NAME, f"{URL}.git@main"))
    assert f"({URL}/blob/HEAD/coatnet/attention.py)" in text
    assert f"({URL}/blob/HEAD/solutions/{NAME}.ipynb)" in text
    assert "](../" not in text
    assert "](../" in texts(student_version(lesson))  # so that there is something to see


def test_away_from_the_course_a_notebook_says_what_to_install(lesson):
    first = student_version(lesson).cells[0].source
    assert "No module named 'course'" in first
    assert "%pip install git+" in first
    assert "%pip install git+ADDRESS" not in texts(hosted.hosted_version(lesson, NAME, URL))


def test_the_command_wants_both_or_neither(tmp_path):
    command = [sys.executable, "-m", "course.build", "--hosted", str(tmp_path / "out")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "--repository URL" in run.stderr
    subprocess.run([*command, "--repository", URL], cwd=ROOT, check=True)
    lessons = sorted(path.stem for path in (ROOT / "lessons").glob("*.py"))
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.ipynb")) == lessons


@pytest.fixture(scope="module")
def without_course(tmp_path_factory):
    """The Python of an environment that has all that this one has, but not the course."""
    folder = tmp_path_factory.mktemp("hosted") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "coatnet" not in entry.name and entry.suffix != ".pth":
            (site / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A bare clone of the course as it stands here."""
    folder = tmp_path_factory.mktemp("repository")
    work, bare = folder / "work", folder / "course.git"
    work.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text", "vit.py"):
        shutil.copy2(ROOT / name, work)
    for name in ("coatnet", "course"):
        shutil.copytree(ROOT / name, work / name, ignore=shutil.ignore_patterns("__pycache__"))
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "course"]):
        subprocess.run(["git", "-C", work, *command], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", work, bare], check=True)
    return str(bare)


RUN = """
import sys
import nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.execute(notebook, timeout=600)
nbformat.write(notebook, sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
def test_one_notebook_alone_in_an_empty_folder_runs_to_its_end(
    lesson, repository, without_course, tmp_path
):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def python(*arguments):
        return subprocess.run(
            [without_course, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    assert "No module named 'course'" in python("-c", "import torch, course").stderr
    build_tool = python("-m", "pip", "download", "-q", "--no-deps", "setuptools>=77", "-d", "x")
    if build_tool.returncode:
        pytest.skip("no package index can be reached")
    path = tmp_path / f"{NAME}.ipynb"
    lesson_files.write(hosted.hosted_version(lesson, NAME, repository), path)
    run = python("-c", RUN, path)
    assert run.returncode == 0, run.stderr[-3000:]
    cells = nbformat.read(path, as_version=4).cells
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
    errors = [o.ename for c in cells for o in c.get("outputs", []) if o.output_type == "error"]
    assert set(errors) == {"NotAttempted"}
    where = python("-c", "import course, torch; print(course.__file__); print(torch.__file__)")
    assert str(without_course.parents[1]) in where.stdout.splitlines()[0]
    site = Path(where.stdout.splitlines()[1]).parents[1]
    assert (site / "torch").is_symlink()  # the one that was there
