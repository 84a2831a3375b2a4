"""lessons/ -> notebooks/ and solutions/, on a small course in a temporary folder."""

import nbformat
import pytest

from course import build

LESSON = """# %% [markdown]
# # A lesson

# %% tags=["exercise"]
def square(x):
    # TODO: the square of x
    ### BEGIN SOLUTION
    return x * x
    ### END SOLUTION


def cube(x):
    return (
        # TODO: the cube of x
        ### BEGIN SOLUTION
        x * square(x)
        ### END SOLUTION
    )

# %% tags=["check"]
check.square(square)

# %%
print(square(3), cube(3))
"""
CHECK = "from types import SimpleNamespace\ncheck = SimpleNamespace(square=lambda f: None)"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "lessons").mkdir()
    text = LESSON.replace("# %% tags=", f"# %%\n{CHECK}\n\n# %% tags=", 1)
    (tmp_path / "lessons" / "01_small.py").write_text(text)
    return tmp_path


def cells(path):
    return {cell.id: cell for cell in nbformat.read(path, as_version=4).cells}


def test_student_gets_placeholders_and_solution_gets_outputs(root):
    build.build(root)
    student = cells(root / "notebooks" / "01_small.ipynb")
    assert list(student) == [
        "cell-00",
        "cell-01",
        "exercise-square",
        "check-square",
        "cell-04",
        "way-on",
    ]
    assert student["exercise-square"].source == (
        "def square(x):\n    # TODO: the square of x\n    pass  # your code here\n\n\n"
        "def cube(x):\n    return (\n        # TODO: the cube of x\n"
        "        ...  # your code here\n    )"
    )
    assert student["cell-04"].outputs == []
    solution = cells(root / "solutions" / "01_small.ipynb")
    assert "return x * x" in solution["exercise-square"].source
    assert "# TODO: the square of x" in solution["exercise-square"].source
    assert "SOLUTION" not in solution["exercise-square"].source
    assert solution["cell-04"].outputs[0].text == "9 27\n"
    assert build.drift(root) == []


def test_building_twice_gives_the_same_bytes(root):
    build.build(root)
    before = (root / "notebooks" / "01_small.ipynb").read_bytes()
    build.build(root)
    assert (root / "notebooks" / "01_small.ipynb").read_bytes() == before


def test_only_changed_code_is_executed(root, capsys):
    build.build(root)
    capsys.readouterr()
    lesson = root / "lessons" / "01_small.py"
    lesson.write_text(lesson.read_text().replace("# # A lesson", "# # Another lesson"))
    build.build(root)
    assert capsys.readouterr().out == "01_small: code unchanged, outputs kept\n"
    solution = cells(root / "solutions" / "01_small.ipynb")
    assert solution["cell-00"].source.startswith("# Another lesson\n")
    assert solution["cell-04"].outputs[0].text == "9 27\n"
    assert build.drift(root) == []
    build.build(root, execute_all=True)
    assert "running the solution" in capsys.readouterr().out


def test_drift_sees_an_edited_lesson(root):
    build.build(root)
    lesson = root / "lessons" / "01_small.py"
    lesson.write_text(lesson.read_text().replace("# # A lesson", "# # Another lesson"))
    assert build.drift(root) == [
        "notebooks/01_small.ipynb is not what lessons/01_small.py gives",
        "solutions/01_small.ipynb is not what lessons/01_small.py gives",
    ]


def test_run_all_goes_on_below_open_exercises_in_the_students_version_only(root):
    build.build(root)
    student, solution = (
        cells(root / folder / "01_small.ipynb")["check-square"].metadata["tags"]
        for folder in ("notebooks", "solutions")
    )
    assert student == ["check", "raises-exception"]
    assert solution == ["check"]  # where a failing check has to stop the build


def test_each_lesson_ends_with_the_way_on(root):
    text = (root / "lessons" / "01_small.py").read_text()
    for name, title in (("00_before", "Before"), ("02_after", "After")):
        (root / "lessons" / f"{name}.py").write_text(text.replace("A lesson", title))
    build.build(root)

    def end(folder, name):
        return cells(root / folder / f"{name}.ipynb")["way-on"].source.splitlines()[2]

    assert end("notebooks", "01_small") == (
        "← [Before](00_before.ipynb) · [The solution](../solutions/01_small.ipynb) · "
        "[After](02_after.ipynb) →"
    )
    assert end("solutions", "01_small").split(" · ")[1] == (
        "[The exercises](../notebooks/01_small.ipynb)"
    )
    assert "←" not in end("notebooks", "00_before")
    assert "→" not in end("notebooks", "02_after")


@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
def test_drift_sees_a_notebook_edited_by_hand(root, folder):
    build.build(root)
    path = root / folder / "01_small.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source += "!"
    nbformat.write(notebook, path)
    assert build.drift(root) == [f"{folder}/01_small.ipynb is not what lessons/01_small.py gives"]


def test_drift_sees_missing_and_stray_notebooks(root):
    build.build(root)
    (root / "notebooks" / "01_small.ipynb").rename(root / "notebooks" / "09_stray.ipynb")
    assert build.drift(root) == [
        "notebooks/01_small.ipynb is missing",
        "notebooks/09_stray.ipynb has no lesson",
    ]


def test_a_students_answers_are_not_overwritten(root):
    build.build(root)
    path = root / "notebooks" / "01_small.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].source = "def square(x):\n    return x**2"
    nbformat.write(notebook, path)
    with pytest.raises(FileExistsError, match=r"01_small.ipynb holds edits .* --force"):
        build.build(root)
    assert "x**2" in path.read_text()
    build.build(root, force=True)
    assert "x**2" not in path.read_text()


def test_a_notebook_that_was_only_run_may_be_rebuilt(root):
    build.build(root)
    path = root / "notebooks" / "01_small.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[4].outputs = [nbformat.v4.new_output("stream", text="9 27\n")]
    nbformat.write(notebook, path)
    build.build(root)
    assert build.drift(root) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("check.square(square)", "check.square(square); print()", "not a check"),
        ('# %% tags=["check"]\ncheck.square(square)\n', "", "an exercise has no check"),
        ("    ### END SOLUTION\n\n\n", "\n\n", "without ### END SOLUTION"),
    ],
)
def test_a_lesson_out_of_form_is_refused(root, old, new, says):
    lesson = root / "lessons" / "01_small.py"
    assert old in lesson.read_text()
    lesson.write_text(lesson.read_text().replace(old, new))
    with pytest.raises(ValueError, match=says):
        build.build(root)


@pytest.mark.parametrize(
    "marker",
    [
        "### BEGIN SOLUTION (easy)",
        "###BEGIN SOLUTION",
        "### begin solution",
        "# BEGIN SOLUTION",
        "### BEGIN  SOLUTION",
        "### BEGIN SOLUTIONS",
        "### START SOLUTION",
        "### BEGIN_SOLUTION",
        "### SOLUTION BEGIN",
        "### BEGIN OF THE SOLUTION",
        "## BEGIN SOLUTION",
        "x = 1  ### BEGIN SOLUTION",
        "### BEGIN SOLUTION  # easy",
    ],
)
@pytest.mark.parametrize("kind", ["BEGIN", "END", "both"])
def test_a_solution_never_leaks_through_a_marker_that_is_slightly_off(root, marker, kind):
    lesson = root / "lessons" / "01_small.py"
    text = lesson.read_text()
    replaced = {"BEGIN": marker, "END": marker.replace("BEGIN", "END").replace("START", "STOP")}
    for name in replaced if kind == "both" else [kind]:
        assert f"### {name} SOLUTION" in text
        end = replaced[name].replace("begin", "end") if name == "END" else replaced[name]
        text = text.replace(f"### {name} SOLUTION", end, 1)
    lesson.write_text(text)
    with pytest.raises(ValueError, match="SOLUTION"):
        build.build(root)
    assert not (root / "notebooks" / "01_small.ipynb").exists()


def test_a_byte_order_mark_changes_nothing(root):
    lesson = root / "lessons" / "01_small.py"
    build.build(root)
    before = (root / "notebooks" / "01_small.ipynb").read_bytes()
    lesson.write_text(lesson.read_text(), encoding="utf-8-sig")
    assert lesson.read_bytes().startswith(b"\xef\xbb\xbf")
    build.build(root)
    assert (root / "notebooks" / "01_small.ipynb").read_bytes() == before


def test_unknown_lesson(root):
    with pytest.raises(ValueError, match="no lesson is called 02_none"):
        build.build(root, names=["02_none"])


def test_a_progress_bar_leaves_no_trace_in_outputs(root):
    lesson = root / "lessons" / "01_small.py"
    lesson.write_text(
        lesson.read_text() + r'print("  1%\r 50%\r      \rEpoch 1 | Loss: 0.5")' + "\n"
    )
    build.build(root)
    text = cells(root / "solutions" / "01_small.ipynb")["cell-04"].outputs[0].text
    assert text == "9 27\nEpoch 1 | Loss: 0.5\n"


def test_a_failing_solution_is_not_written(root):
    lesson = root / "lessons" / "01_small.py"
    lesson.write_text(lesson.read_text().replace("return x * x", "return x * y"))
    with pytest.raises(Exception, match="name 'y' is not defined"):
        build.build(root)
    assert not (root / "solutions" / "01_small.ipynb").exists()
