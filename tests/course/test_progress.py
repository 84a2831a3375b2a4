"""Progress as a command: what it takes, prints, writes and returns."""

import json
import signal
import subprocess
import sys

import nbformat
import pytest

from course import lesson_files, progress
from course.classroom import pages
from course.classroom.results import Row
from tests.checks.harness import exercise_cells

pytestmark = pytest.mark.slow


def folder_with(tmp_path, *solved):
    """A student's folder with lesson 2, some exercises solved."""
    lesson = "02_cnn_stem_hybrid"
    notebook = nbformat.read(lesson_files.ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.id.removeprefix("exercise-") in solved:
            cell.source = exercise_cells(lesson)[cell.id.removeprefix("exercise-")]
    nbformat.write(notebook, tmp_path / f"{lesson}.ipynb")
    return [lesson, "--folder", str(tmp_path)]


def test_all_passed_is_exit_code_0_and_a_page(tmp_path, capsys):
    arguments = folder_with(tmp_path, "cnn-stem", "coatnet-hybrid")
    assert progress.main([*arguments, "--html", str(tmp_path / "page.html")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "02 · A convolutional stem  2 of 2"
    assert out.splitlines()[1].split() == ["✓", "1", "·", "CNNStem", "passed"]
    assert "2 exercises: 2 passed" in out
    page = (tmp_path / "page.html").read_text()
    assert page.count("✓ passed") == 2
    assert "2 of 2" in page
    assert "CNNStem" in page


def test_something_not_attempted_is_exit_code_3_and_json(tmp_path, capfd):
    arguments = folder_with(tmp_path, "cnn-stem")
    (tmp_path / "02_copy.ipynb").write_text("")
    assert progress.main([*arguments, "--json"]) == 3
    shown = capfd.readouterr()
    rows = json.loads(shown.out)
    assert len(shown.err.splitlines()) == 2  # one for the lesson, and nothing from its kernel
    assert "02_cnn_stem_hybrid ... 1 of 2 passed" in shown.err
    assert "02_copy.ipynb" in shown.err
    assert [(row["number"], row["exercise"], row["outcome"], row["message"]) for row in rows] == [
        ("1", "CNNStem", "passed", ""),
        ("2", "CoAtNEt", "not attempted", ""),
    ]


@pytest.mark.parametrize("number", ["2", "02", "02_cnn_stem_hybrid"])
def test_a_lesson_by_its_number(tmp_path, capsys, number):
    _, *folder = folder_with(tmp_path)
    assert progress.main([number, *folder]) == 3
    assert capsys.readouterr().out.splitlines()[0].startswith("02 · ")


def test_a_file_and_a_copy_under_another_name(tmp_path, capsys):
    folder_with(tmp_path, "cnn-stem", "coatnet-hybrid")
    copy = tmp_path / "Copy of 02 (1).ipynb"
    (tmp_path / "02_cnn_stem_hybrid.ipynb").rename(copy)
    assert progress.main([str(copy), "--folder", str(tmp_path)]) == 0
    assert progress.main(["2", "--folder", str(tmp_path)]) == 0
    assert "02_cnn_stem_hybrid: Copy of 02 (1).ipynb stands for it" in capsys.readouterr().err


def test_a_summary_for_a_job(tmp_path):
    arguments = folder_with(tmp_path, "cnn-stem")
    (tmp_path / "summary.md").write_text("before\n")
    assert progress.main([*arguments, "--summary", str(tmp_path / "summary.md")]) == 3
    text = (tmp_path / "summary.md").read_text()
    assert text.startswith("before\n### Progress: 2 exercises: 1 passed, 1 not attempted\n")
    assert "| 02.1 | CNNStem | ✓ passed |  |" in text


def test_something_failing_is_exit_code_1(tmp_path, capsys):
    arguments = folder_with(tmp_path)
    (tmp_path / "02_cnn_stem_hybrid.ipynb").write_text("")
    assert progress.main(arguments) == 1
    assert "2 exercises: 2 failing" in capsys.readouterr().out


def test_an_empty_folder_loses_no_lesson(tmp_path, capsys):
    assert progress.main(["--folder", str(tmp_path)]) == 3
    out = capsys.readouterr().out
    for path in (lesson_files.ROOT / "lessons").glob("*.py"):
        assert f"there is no {path.stem}.ipynb" in out


def test_ctrl_c_ends_it_at_once_without_a_traceback(tmp_path):
    folder_with(tmp_path)
    path = tmp_path / "02_cnn_stem_hybrid.ipynb"
    notebook = nbformat.read(path, as_version=4)
    exercise = next(cell for cell in notebook.cells if cell.id == "exercise-cnn-stem")
    exercise.source = "while True: pass"
    nbformat.write(notebook, path)
    running = subprocess.Popen(
        [sys.executable, "-m", "course.progress", "02", "--folder", str(tmp_path)],
        cwd=lesson_files.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr.read(len("02_cnn_stem_hybrid")) == "02_cnn_stem_hybrid"
    running.send_signal(signal.SIGINT)
    _, shown = running.communicate(timeout=50)  # a cell may run for 60 s
    assert running.returncode == 130
    assert shown.endswith("stopped\n")
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["99_no_lesson"],
        ["--folder", "/no/such/folder"],
        ["--html", "/no/such/folder/page.html"],
        ["--limit", "0"],
        ["/no/such/file.ipynb"],
    ],
)
def test_a_wrong_call_is_exit_code_2_and_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        progress.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("python -m course.progress: error:")


def test_pages_escape_what_students_write():
    row = Row("lesson", "1", "a", "failing", "<script>alert(1)</script>")
    page = pages.progress_page([row], {})
    assert "alert(1)" in page
    assert "<script>" not in page


def test_make_progress_ends_without_an_error_where_something_is_left_to_do(tmp_path):
    """The same line as in the Makefile, with a command that ends as progress does."""
    line = next(
        line.strip().removeprefix("@").replace("$$", "$")
        for line in (lesson_files.ROOT / "Makefile").read_text().splitlines()
        if "course.progress" in line
    )
    for code, ends in {0: 0, 1: 0, 3: 0, 2: 2, 130: 130}.items():
        command = line.replace("$(BIN)/python -m course.progress", f"(exit {code})")
        assert command != line
        assert subprocess.run(["sh", "-c", command], check=False).returncode == ends
