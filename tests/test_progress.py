"""Progress: whatever a student's notebook holds or does, each exercise gets a row that says so."""

import json

import nbformat
import pytest
from answers import exercise_cells

from course import build, progress
from course.build import read_lesson, student_version

NAMES = [f"answer_{letter}" for letter in "abcdefghijklmno"]
FIRST = """# %% [markdown]
# # Lesson

# %%
FULL = False
import checks as check

print("loading data", file=open("loaded", "w"))

"""
EXERCISE = """# %% [markdown]
# ### Exercise {number} · {name} (5 min, ★☆☆)


# %% tags=["exercise"]
def {name}():
    # TODO
    ### BEGIN SOLUTION
    return {number}
    ### END SOLUTION


# %% tags=["check"]
check.{name}({name})

# %%
open("trained", "w").write("a long training")

"""
CHECKS = """
from course.checking import CheckFailed, exercise, students_code


def make(number, name):
    def reference():
        return number

    reference.__name__ = name

    @exercise(name, reference, ())
    def check(answer):
        with students_code("it runs"):
            came = answer()
        if came != number:
            raise CheckFailed(str(number), str(came), "a hint" if came == -1 else "")
        return "right."

    return check


for number, name in enumerate({names}, start=1):
    globals()[name] = make(number, name)
"""


@pytest.fixture
def lesson(tmp_path):
    """A lesson with an exercise for each name, its checks beside it, and the unfilled notebook."""
    text = FIRST + "".join(
        EXERCISE.format(number=number, name=name) for number, name in enumerate(NAMES, start=1)
    )
    path = tmp_path / "lesson.py"
    path.write_text(text)
    (tmp_path / "checks.py").write_text(CHECKS.format(names=NAMES))
    lesson = read_lesson(path)
    build.write(student_version(lesson), tmp_path / "lesson.ipynb")
    return lesson


def write(folder, change):
    path = folder / "lesson.ipynb"
    notebook = nbformat.read(path, as_version=4)
    change(notebook.cells, {cell.id: cell for cell in notebook.cells})
    nbformat.write(notebook, path)


def rows_of(folder, lesson, limit=4):
    rows = progress.run_lesson("lesson", folder / "lesson.ipynb", lesson, limit)
    return {row.exercise: (row.outcome, row.message) for row in rows}


def answer(name, body):
    return f"def {name}():\n    {body}"


def test_every_exercise_has_its_row_whatever_happens(lesson, tmp_path):
    bodies = {
        "a": "return 1",
        "c": "return -1",
        "d": "return 5",
        "e": "return 1 +* 2",
        "f": "return 1 / 0",
        "g": "while True: pass",
        "h": "import os; os._exit(1)",
        "i": "import sys; sys.exit()",
        "m": "return input('your name?')",
        "n": "print('x' * 5_000_000); return 14",
    }

    def change(cells, by_id):
        for letter, body in bodies.items():
            name = f"answer_{letter}"
            by_id[f"exercise-{name.replace('_', '-')}"].source = answer(name, body)
        cells.remove(by_id["check-answer-j"])
        by_id["exercise-answer-j"].source = answer("answer_j", "return 10")
        cells.remove(by_id["exercise-answer-k"])
        by_id["exercise-answer-l"].source = answer("answer_l", "return HELPER")
        by_id["exercise-answer-l"].id = "retyped"
        by_id["check-answer-l"].id = "retyped-too"
        place = cells.index(by_id["exercise-answer-l"])
        cells.insert(place + 1, nbformat.v4.new_code_cell("HELPER = 12", id="extra"))
        by_id["exercise-answer-o"].source = "import os\nos._exit(1)\n" + answer("answer_o", "pass")

    write(tmp_path, change)
    rows = rows_of(tmp_path, lesson)
    assert list(rows) == NAMES
    assert rows["answer_a"] == ("passed", "")
    assert rows["answer_b"] == (
        "not attempted",
        "answer_b: not attempted yet. Fill in the TODO above, then run this again.",
    )
    assert rows["answer_c"] == ("failing", "a hint")
    assert rows["answer_d"] == ("failing", "expected 4, came 5")
    says = {
        "e": "SyntaxError: invalid syntax",
        "f": "ZeroDivisionError",
        "g": "ran longer than 4 s and was stopped",
        "h": "the kernel died",
        "i": "SystemExit",
        "k": "the notebook has no answer_k",
        "m": "input",
        "o": "the kernel died",
    }
    for letter, words in says.items():
        outcome, message = rows[f"answer_{letter}"]
        assert outcome == "failing"
        assert words in message, letter
        assert "\n" not in message
    for letter in "jln":  # no check, another id and a cell more, much output
        assert rows[f"answer_{letter}"] == ("passed", ""), letter
    # neither data nor training
    assert not (tmp_path / "loaded").exists()
    assert not (tmp_path / "trained").exists()


@pytest.mark.parametrize("text", ["{ no json", "", "[]", '{"cells": 3}'])
def test_a_file_that_is_no_notebook_is_a_row_for_each_exercise(lesson, tmp_path, text):
    (tmp_path / "lesson.ipynb").write_text(text)
    rows = rows_of(tmp_path, lesson)
    assert list(rows) == NAMES
    assert all(outcome == "failing" for outcome, _ in rows.values())
    assert all("cannot be read" in message for _, message in rows.values())


def test_a_notebook_that_is_not_there_is_a_row_for_each_exercise(lesson, tmp_path):
    (tmp_path / "lesson.ipynb").unlink()
    assert set(rows_of(tmp_path, lesson).values()) == {("failing", "there is no lesson.ipynb")}


def folder_with(tmp_path, *solved):
    """A student's folder with lesson 2, some exercises solved."""
    lesson = "02_cnn_stem_hybrid"
    notebook = nbformat.read(build.ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.id.removeprefix("exercise-") in solved:
            cell.source = exercise_cells(lesson)[cell.id.removeprefix("exercise-")]
    nbformat.write(notebook, tmp_path / f"{lesson}.ipynb")
    return [lesson, "--folder", str(tmp_path)]


def test_all_passed_is_exit_code_0_and_a_page(tmp_path, capsys):
    arguments = folder_with(tmp_path, "cnn-stem", "coatnet-hybrid")
    assert progress.main([*arguments, "--html", str(tmp_path / "page.html")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "02_cnn_stem_hybrid"
    assert "2 exercises: 2 passed" in out
    page = (tmp_path / "page.html").read_text()
    assert page.count("✓ passed") == 2
    assert "CNNStem" in page


def test_something_not_attempted_is_exit_code_3_and_json(tmp_path, capsys):
    assert progress.main([*folder_with(tmp_path, "cnn-stem"), "--json"]) == 3
    rows = json.loads(capsys.readouterr().out)
    assert [(row["exercise"], row["outcome"]) for row in rows] == [
        ("CNNStem", "passed"),
        ("CoAtNEt", "not attempted"),
    ]


def test_something_failing_is_exit_code_1(tmp_path, capsys):
    arguments = folder_with(tmp_path)
    (tmp_path / "02_cnn_stem_hybrid.ipynb").write_text("")
    assert progress.main(arguments) == 1
    assert "2 exercises: 2 failing" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["99_no_lesson"], ["--folder", "/no/such/folder"]])
def test_a_wrong_call_is_exit_code_2_and_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        progress.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("python -m course.progress: error:")


def test_pages_escape_what_students_write():
    row = progress.Row("lesson", "a", "failing", "<script>alert(1)</script>")
    assert "<script>" not in progress.page([row])
