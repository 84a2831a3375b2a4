"""Whatever a student's notebook holds or does, each exercise gets a row that says so: the same from
kernels, from forks of a warm process, and from forks in a sandbox."""

import json

import nbformat
import pytest

from course import lesson_files
from course.classroom import engine, kernel
from course.classroom.engine import warm_sessions
from course.lesson_files import read_lesson, student_version
from tests.checks.harness import exercise_cells

pytestmark = pytest.mark.slow

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


def after_{name}():
    return {number}


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
    lesson_files.write(student_version(lesson), tmp_path / "lesson.ipynb")
    return lesson


def write(folder, change):
    path = folder / "lesson.ipynb"
    notebook = nbformat.read(path, as_version=4)
    change(notebook.cells, {cell.id: cell for cell in notebook.cells})
    nbformat.write(notebook, path)


@pytest.fixture(params=["kernel", "forked", "jailed"])
def rows_of(request, warm, jailed, tmp_path):
    """The rows of the lesson in the test's folder, from each kind of session."""
    sessions = {"kernel": kernel.Kernel, "forked": warm, "jailed": jailed}[request.param]

    def run(lesson, limit=4):
        if sessions is None:
            pytest.skip("this system has no sandbox")
        rows = engine.run_file("lesson", tmp_path / "lesson.ipynb", lesson, sessions, limit)
        return {row.exercise: (row.outcome, row.message) for row in rows}

    return run


def answer(name, body):
    return f"def {name}():\n    {body}"


def test_every_exercise_has_its_row_whatever_happens(lesson, tmp_path, rows_of):
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
    rows = rows_of(lesson)
    assert list(rows) == NAMES
    assert rows["answer_a"] == ("passed", "")
    assert rows["answer_b"] == ("not attempted", "")
    assert rows["answer_c"] == ("failing", "a hint")
    assert rows["answer_d"] == ("failing", "expected 4, came 5")
    says = {
        "e": "SyntaxError: invalid syntax",
        "f": "ZeroDivisionError",
        "g": "ran longer than 4 s and was stopped",
        "h": "its process died",
        "i": "SystemExit",
        "k": "the notebook has no answer_k",
        "m": "input",
        "o": "its process died",
    }
    for letter, words in says.items():
        outcome, message = rows[f"answer_{letter}"]
        assert outcome == "failing"
        assert words in message, letter
        assert "\n" not in message
    missing = "its check is missing from the notebook, and ran anyway"
    assert rows["answer_j"] == ("passed", missing)
    for letter in "ln":  # another id and a cell more, much output
        assert rows[f"answer_{letter}"] == ("passed", ""), letter
    # neither data nor training
    assert not (tmp_path / "loaded").exists()
    assert not (tmp_path / "trained").exists()


def test_right_answers_pass_however_the_notebook_was_edited(lesson, tmp_path, rows_of):
    def change(cells, by_id):
        def add_below(letter, source):
            place = cells.index(by_id[f"exercise-answer-{letter}"]) + 1
            cells.insert(place, nbformat.v4.new_code_cell(source))

        for number, name in enumerate(NAMES, start=1):
            cell = by_id[f"exercise-{name.replace('_', '-')}"]
            cell.source = answer(name, f"return {number}")
        by_id["cell-01"].source += "\nfrom math import sqrt\nEIGHT = 8"
        by_id["exercise-answer-a"].source += "\nexit()"
        by_id["exercise-answer-b"].source = answer("answer_b", "return after_answer_a() + 1")
        by_id["exercise-answer-c"].source = answer("answer_c", "return int(sqrt(9))")
        by_id["exercise-answer-d"].source += "\ncheck.answer_d(answer_d)"
        cells.remove(by_id["check-answer-d"])
        by_id["exercise-answer-e"].source += "\ncheck = True"
        by_id["exercise-answer-f"].source = "answer_f = lambda: 6"
        by_id["exercise-answer-g"].source = "# in the cell below"
        add_below("g", answer("answer_g", "return 7"))
        by_id["exercise-answer-h"].source = answer("answer_h", "return EIGHT")
        by_id["exercise-answer-i"].source = answer("answer_i", "return 0")
        cells += [
            nbformat.v4.new_code_cell(answer("answer_i", "return 9")),
            nbformat.v4.new_code_cell("check.answer_i( answer_i )  # once more"),
        ]
        by_id["exercise-answer-j"].source += "\nimport sys\nsys.stdin.read()"
        add_below("k", "while True: pass")
        add_below("k", "%nonsense of a magic")
        by_id["exercise-answer-l"].source = "%precision 3\n" + answer("answer_l", "return 12")
        by_id["check-answer-m"].source = "# check.answer_m(answer_m)"
        by_id["exercise-answer-n"].source = answer("mine", "return 14")
        by_id["check-answer-n"].source = "check.answer_n(mine)"
        for cell in cells[-8:]:
            cell.id = f"new-{cell.id}"

    write(tmp_path, change)
    rows = rows_of(lesson, limit=2)
    notes = {
        "answer_m": "its check is missing from the notebook, and ran anyway",
        "answer_n": "the notebook checks it with check.answer_n(mine)",
    }
    assert rows == {name: ("passed", notes.get(name, "")) for name in NAMES}
    # Of the lesson's cells only the statements that an answer uses have run
    assert not (tmp_path / "loaded").exists()
    assert not (tmp_path / "trained").exists()


def test_failures_of_all_kinds_are_a_line_each(lesson, tmp_path, rows_of):
    sleeper = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n    while True: pass"
    says = {  # the whole cell, and the message
        "a": ("raise ValueError", "ValueError"),
        "b": ("assert 1 == 2", "AssertionError"),
        "c": ("raise ValueError('\\n\\n\\x1b[31mlate')", "ValueError: late"),
        "d": ("raise ValueError('x' * 5000)", f"ValueError: {'x' * 299}…"),
        "e": ("import sys; sys.exit('bye')", "SystemExit: bye"),
        "f": ("input('name?')", "it waits for input(), and nobody is there to type"),
        "g": (
            answer("answer_g", sleeper),
            "ran longer than 2 s and was stopped: is there an endless loop?",
        ),
        "h": (
            answer("answer_h", "import ctypes; ctypes.string_at(0)"),
            "its process died here: a crash, or os._exit?",
        ),
        "i": (
            "def answer_i()\n    pass",
            "SyntaxError: expected ':' (line 1 of its cell)",
        ),
        "k": (
            answer("answer_k", "while True: print('x' * 1000)"),
            "ran longer than 2 s and was stopped: is there an endless loop?",
        ),
    }

    def change(cells, by_id):
        for letter, (source, _) in says.items():
            by_id[f"exercise-answer-{letter}"].source = source
        by_id["exercise-answer-j"].source = answer("answer_j", "return 0")
        by_id[
            "check-answer-j"
        ].source = "try:\n    check.answer_j(answer_j)\nexcept Exception:\n    pass"
        place = cells.index(by_id["exercise-answer-l"]) + 1
        cells.insert(place, nbformat.v4.new_code_cell("def helper(:"))

    write(tmp_path, change)
    rows = rows_of(lesson, limit=2)
    for letter, (_, message) in says.items():
        assert rows[f"answer_{letter}"] == ("failing", message), letter
    assert rows["answer_j"] == ("failing", "expected 10, came 0")
    outcome, message = rows["answer_l"]
    assert outcome == "not attempted"
    assert "a cell below it fails: SyntaxError" in message
    assert rows["answer_m"][0] == "not attempted"


def test_a_notebook_whose_ids_all_changed_still_does_not_train(lesson, tmp_path, rows_of):
    def change(cells, by_id):
        by_id["exercise-answer-a"].source = answer("answer_a", "return 1")
        for number, cell in enumerate(cells):
            cell.id = f"copied-{number}"

    write(tmp_path, change)
    rows = rows_of(lesson)
    assert rows.pop("answer_a") == ("passed", "")
    assert {outcome for outcome, _ in rows.values()} == {"not attempted"}
    assert not (tmp_path / "loaded").exists()
    assert not (tmp_path / "trained").exists()


def test_damaged_cells_cost_their_own_exercise(lesson, tmp_path, rows_of):
    path = tmp_path / "lesson.ipynb"
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["id"] == "exercise-answer-b":
            del cell["source"]
        del cell["id"]
    path.write_text(json.dumps(notebook))
    rows = rows_of(lesson)
    assert rows.pop("answer_b") == (
        "failing",
        "the notebook has no answer_b: was its cell deleted?",
    )
    assert {outcome for outcome, _ in rows.values()} == {"not attempted"}


def test_a_course_that_cannot_be_imported_is_a_row_for_each_exercise(lesson, tmp_path, rows_of):
    (tmp_path / "checks.py").write_text("import no_such_module")
    message = "the lesson's imports fail: ModuleNotFoundError: No module named 'no_such_module'"
    assert rows_of(lesson) == dict.fromkeys(NAMES, ("failing", message))


def test_a_kernel_that_does_not_start_is_a_row_for_each_exercise(lesson, tmp_path, monkeypatch):
    start = kernel.KernelManager.start_kernel
    broken = {"PYTHONHOME": str(tmp_path)}  # a Python without its library
    monkeypatch.setattr(
        kernel.KernelManager,
        "start_kernel",
        lambda manager, env, **settings: start(manager, env={**env, **broken}, **settings),
    )
    rows = engine.run_file("lesson", tmp_path / "lesson.ipynb", lesson, kernel.Kernel)
    assert [row.exercise for row in rows] == NAMES
    assert {row.outcome for row in rows} == {"failing"}
    assert all("died before" in row.message for row in rows)


def test_a_warm_process_that_is_gone_is_a_row_for_each_exercise(lesson, tmp_path):
    with warm_sessions([lesson], jailed=False) as sessions:
        sessions.process.kill()
        sessions.process.wait()
        rows = engine.run_file("lesson", tmp_path / "lesson.ipynb", lesson, sessions)
    assert [row.exercise for row in rows] == NAMES
    assert {row.outcome for row in rows} == {"failing"}
    assert all("the warm process is gone" in row.message for row in rows)


@pytest.mark.parametrize("text", ["{ no json", "", "[]", '{"cells": 3}'])
def test_a_file_that_is_no_notebook_is_a_row_for_each_exercise(lesson, tmp_path, warm, text):
    (tmp_path / "lesson.ipynb").write_text(text)
    rows = engine.run_file("lesson", tmp_path / "lesson.ipynb", lesson, warm)
    assert [row.exercise for row in rows] == NAMES
    assert all(row.outcome == "failing" for row in rows)
    assert all("cannot be read" in row.message for row in rows)


def test_a_notebook_that_is_not_there_is_not_submitted(lesson, tmp_path, warm):
    (tmp_path / "lesson.ipynb").unlink()
    rows = engine.run_file("lesson", tmp_path / "lesson.ipynb", lesson, warm)
    assert [row.exercise for row in rows] == NAMES
    assert {(row.outcome, row.message) for row in rows} == {
        ("not submitted", "there is no lesson.ipynb")
    }


@pytest.mark.parametrize(
    "path", sorted((lesson_files.ROOT / "lessons").glob("*.py")), ids=lambda p: p.stem
)
def test_every_solution_of_the_course_passes(path, tmp_path, rows_of):
    lesson = read_lesson(path)
    notebook = student_version(lesson)
    for cell in notebook.cells:
        if cell.id.startswith("exercise-"):
            cell.source = exercise_cells(path.stem)[cell.id.removeprefix("exercise-")]
    nbformat.write(notebook, tmp_path / "lesson.ipynb")
    rows = rows_of(lesson, limit=60)
    assert len(rows) == sum(cell.id.startswith("check-") for cell in lesson.cells) > 0
    assert rows == dict.fromkeys(rows, ("passed", ""))
