"""Progress: whatever a student's notebook holds or does, each exercise gets a row that says so."""

import json
import signal
import subprocess
import sys

import nbformat
import pytest

from course import lesson_files, progress
from course.lesson_files import read_lesson, student_version
from tests.checks.harness import exercise_cells

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
    missing = "its check is missing from the notebook, and ran anyway"
    assert rows["answer_j"] == ("passed", missing)
    for letter in "ln":  # another id and a cell more, much output
        assert rows[f"answer_{letter}"] == ("passed", ""), letter
    # neither data nor training
    assert not (tmp_path / "loaded").exists()
    assert not (tmp_path / "trained").exists()


def test_right_answers_pass_however_the_notebook_was_edited(lesson, tmp_path):
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
    rows = rows_of(tmp_path, lesson, limit=2)
    notes = {
        "answer_m": "its check is missing from the notebook, and ran anyway",
        "answer_n": "the notebook checks it with check.answer_n(mine)",
    }
    assert rows == {name: ("passed", notes.get(name, "")) for name in NAMES}
    # Of the lesson's cells only the statements that an answer uses have run
    assert not (tmp_path / "loaded").exists()
    assert not (tmp_path / "trained").exists()


def test_failures_of_all_kinds_are_a_line_each(lesson, tmp_path):
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
            "the kernel died here: a crash, or os._exit?",
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
    rows = rows_of(tmp_path, lesson, limit=2)
    for letter, (_, message) in says.items():
        assert rows[f"answer_{letter}"] == ("failing", message), letter
    assert rows["answer_j"] == ("failing", "expected 10, came 0")
    outcome, message = rows["answer_l"]
    assert outcome == "not attempted"
    assert "a cell below it fails: SyntaxError" in message
    assert rows["answer_m"][0] == "not attempted"


def test_a_notebook_whose_ids_all_changed_still_does_not_train(lesson, tmp_path):
    def change(cells, by_id):
        by_id["exercise-answer-a"].source = answer("answer_a", "return 1")
        for number, cell in enumerate(cells):
            cell.id = f"copied-{number}"

    write(tmp_path, change)
    rows = rows_of(tmp_path, lesson)
    assert rows.pop("answer_a") == ("passed", "")
    assert {outcome for outcome, _ in rows.values()} == {"not attempted"}
    assert not (tmp_path / "loaded").exists()
    assert not (tmp_path / "trained").exists()


def test_damaged_cells_cost_their_own_exercise(lesson, tmp_path):
    path = tmp_path / "lesson.ipynb"
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["id"] == "exercise-answer-b":
            del cell["source"]
        del cell["id"]
    path.write_text(json.dumps(notebook))
    rows = rows_of(tmp_path, lesson)
    assert rows.pop("answer_b") == (
        "failing",
        "the notebook has no answer_b: was its cell deleted?",
    )
    assert {outcome for outcome, _ in rows.values()} == {"not attempted"}


def test_a_course_that_cannot_be_imported_is_a_row_for_each_exercise(lesson, tmp_path):
    (tmp_path / "checks.py").write_text("import no_such_module")
    message = "the lesson's imports fail: ModuleNotFoundError: No module named 'no_such_module'"
    assert rows_of(tmp_path, lesson) == dict.fromkeys(NAMES, ("failing", message))


def test_a_kernel_that_does_not_start_is_a_row_for_each_exercise(lesson, tmp_path, monkeypatch):
    start = progress.KernelManager.start_kernel
    broken = {"PYTHONHOME": str(tmp_path)}  # a Python without its library
    monkeypatch.setattr(
        progress.KernelManager,
        "start_kernel",
        lambda manager, env, **settings: start(manager, env={**env, **broken}, **settings),
    )
    rows = rows_of(tmp_path, lesson)
    assert list(rows) == NAMES
    assert {outcome for outcome, _ in rows.values()} == {"failing"}
    assert all("died before" in message for _, message in rows.values())


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
    assert out.splitlines()[0] == "02_cnn_stem_hybrid"
    assert "2 exercises: 2 passed" in out
    page = (tmp_path / "page.html").read_text()
    assert page.count("✓ passed") == 2
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
    assert [(row["exercise"], row["outcome"]) for row in rows] == [
        ("CNNStem", "passed"),
        ("CoAtNEt", "not attempted"),
    ]


def test_something_failing_is_exit_code_1(tmp_path, capsys):
    arguments = folder_with(tmp_path)
    (tmp_path / "02_cnn_stem_hybrid.ipynb").write_text("")
    assert progress.main(arguments) == 1
    assert "2 exercises: 2 failing" in capsys.readouterr().out


def test_an_empty_folder_loses_no_lesson(tmp_path, capsys):
    assert progress.main(["--folder", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    for path in (lesson_files.ROOT / "lessons").glob("*.py"):
        assert f"there is no {path.stem}.ipynb" in out


@pytest.mark.parametrize(
    "path", sorted((lesson_files.ROOT / "lessons").glob("*.py")), ids=lambda p: p.stem
)
def test_every_solution_of_the_course_passes(path, tmp_path):
    lesson = read_lesson(path)
    notebook = student_version(lesson)
    for cell in notebook.cells:
        if cell.id.startswith("exercise-"):
            cell.source = exercise_cells(path.stem)[cell.id.removeprefix("exercise-")]
    nbformat.write(notebook, tmp_path / "lesson.ipynb")
    rows = progress.run_lesson(path.stem, tmp_path / "lesson.ipynb", lesson)
    assert len(rows) == sum(cell.id.startswith("check-") for cell in lesson.cells) > 0
    assert [(row.exercise, row.outcome, row.message) for row in rows] == [
        (row.exercise, "passed", "") for row in rows
    ]


def test_ctrl_c_ends_it_at_once_without_a_traceback():
    running = subprocess.Popen(
        [sys.executable, "-m", "course.progress", "02", "--folder", "notebooks"],
        cwd=lesson_files.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr.read(len("02_cnn_stem_hybrid")) == "02_cnn_stem_hybrid"
    running.send_signal(signal.SIGINT)
    _, shown = running.communicate(timeout=30)
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
    ],
)
def test_a_wrong_call_is_exit_code_2_and_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        progress.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("python -m course.progress: error:")


def test_pages_escape_what_students_write():
    row = progress.Row("lesson", "a", "failing", "<script>alert(1)</script>")
    assert "<script>" not in progress.page([row])
