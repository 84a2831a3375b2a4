"""Nothing of a student's is ever lost: what `make update` does to copies and what is in them."""

import json
import random
import re
import sys

import nbformat
import pytest

from course import lesson_files, update
from course.lesson_files import read_lesson, student_version

LESSON = """# %% [markdown]
# # Lesson
#
# First words.

# %%
FULL = False
import torch

# %% [markdown]
# ### Exercise 1 · Double (5 min, ★☆☆)
#
# Twice as much.


# %% tags=["exercise"]
def double(x):
    # TODO: return it
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION


# %% tags=["check"]
check.double(double)

# %%
print("a look at it")

# %% [markdown]
# ### Exercise 2 · Half (5 min, ★☆☆)
#
# Half as much.


# %% tags=["exercise"]
def half(x):
    # TODO: return it
    ### BEGIN SOLUTION
    return x / 2
    ### END SOLUTION


# %% tags=["check"]
check.half(half)

# %%
print("another look")
"""
ANSWER = "def double(x):\n    return x + x  # mine"


@pytest.fixture
def root(tmp_path):
    """A course with one lesson, and a copy of it in work/."""
    (tmp_path / "lessons").mkdir()
    (tmp_path / "notebooks").mkdir()
    publish(tmp_path, LESSON)
    assert update.update(tmp_path) == (["new in work/, for you to work in: 01"], True)
    return tmp_path


def publish(root, text):
    """A new version of the lesson, as `make build` and `git pull` bring it."""
    (root / "lessons" / "01.py").write_text(text)
    notebook = student_version(read_lesson(root / "lessons" / "01.py"))
    lesson_files.write(notebook, root / "notebooks" / "01.ipynb")
    return notebook


def read(root):
    return nbformat.read(root / "work" / "01.ipynb", as_version=4)


def edit(root, change):
    notebook = read(root)
    change({cell.id: cell for cell in notebook.cells}, notebook.cells)
    nbformat.write(notebook, root / "work" / "01.ipynb")


def answer(cells, _):
    cells["exercise-double"].source = ANSWER


def sources(root):
    return {cell.id: cell.source for cell in read(root).cells}


def test_a_copy_is_made_once_and_is_the_lesson(root):
    original = (root / "notebooks" / "01.ipynb").read_text()
    copy, lesson = read(root), nbformat.reads(original, as_version=4)
    assert copy.cells == lesson.cells
    # Only what JupyterLab would add on opening it, which would count as an edit
    version = copy.metadata.language_info.pop("version")
    assert version == ".".join(map(str, sys.version_info[:3]))
    assert copy.metadata == lesson.metadata
    edit(root, answer)
    assert update.update(root) == ([], True)  # nothing new, nothing done
    assert sources(root)["exercise-double"] == ANSWER
    assert (root / "notebooks" / "01.ipynb").read_text() == original
    assert not (root / "work" / "backup").exists()


def test_a_base_from_before_it_had_a_dot_is_found(root):
    (root / "work" / ".base").rename(root / "work" / "base")
    edit(root, answer)
    publish(root, LESSON.replace("Twice as much", "The double"))
    update.update(root)
    assert sources(root)["exercise-double"] == ANSWER
    assert any("The double" in text for text in sources(root).values())
    assert not (root / "work" / "base").exists()


def test_a_cell_run_before_the_lesson_had_tags_gets_them_and_keeps_its_output(root):
    def run(cells, _):
        cells["check-double"].outputs = [nbformat.v4.new_output("stream", text="passed")]
        cells["check-double"].metadata = {"scrolled": True}

    edit(root, run)
    publish(root, LESSON.replace("First words", "Better words"))
    update.update(root)
    cell = next(cell for cell in read(root).cells if cell.id == "check-double")
    assert cell.outputs[0].text == "passed"
    assert cell.metadata == {"scrolled": True, "tags": ["check", "raises-exception"]}


def test_an_untouched_copy_becomes_the_new_lesson(root):
    new = publish(root, LESSON.replace("First words", "Better words"))
    report, _ = update.update(root)
    assert "updated" in report[0]
    assert [c.source for c in read(root).cells] == [c.source for c in new.cells]


def test_only_missing_changes_no_copy_and_says_that_there_is_a_newer_one(root):
    edit(root, answer)
    before = (root / "work" / "01.ipynb").read_text()
    publish(root, LESSON.replace("First words", "Better words"))
    assert update.update(root, only_missing=True)[0] == [
        "01: there is a newer version; `make update` brings it"
    ]
    assert (root / "work" / "01.ipynb").read_text() == before


def test_an_answer_stays_when_the_text_around_it_changes(root):
    edit(root, answer)
    publish(root, LESSON.replace("Twice as much", "The double").replace("a look", "a new look"))
    report, _ = update.update(root)
    assert len(report) == 1  # nothing that was not carried over
    assert sources(root)["exercise-double"] == ANSWER
    text = "\n".join(sources(root).values())
    assert "The double" in text
    assert "a new look" in text
    assert "Twice as much" not in text


def test_an_answer_stays_when_its_scaffold_changes_and_the_new_one_is_shown(root):
    edit(root, answer)
    publish(root, LESSON.replace("# TODO: return it", "# TODO: return twice x", 1))
    report, _ = update.update(root)
    assert "the exercise has changed, your answer stays: 'def double(x):'" in report[1]
    cells = read(root).cells
    place = next(i for i, cell in enumerate(cells) if cell.id == "exercise-double")
    assert cells[place].source == ANSWER
    assert cells[place + 1].cell_type == "markdown"
    assert "# TODO: return twice x" in cells[place + 1].source
    assert cells[place + 2].id == "check-double"


def test_the_answer_to_a_removed_exercise_is_at_the_end(root):
    edit(root, answer)
    start, end = LESSON.index("# %% [markdown]\n# ### Exercise 1"), LESSON.index('# %%\nprint("a l')
    publish(root, LESSON[:start] + LESSON[end:])
    report, _ = update.update(root)
    assert "no longer in the lesson, now at its end: 'def double(x):'" in report[1]
    assert read(root).cells[-1].source == ANSWER
    assert "earlier version" in read(root).cells[-2].source


def test_own_cells_stay_behind_the_cell_they_followed_when_cells_come_in_above(root):
    def add(_, cells):
        place = next(i for i, cell in enumerate(cells) if "a look" in cell.source)
        cells.insert(place + 1, nbformat.v4.new_code_cell("my_own = 1"))

    edit(root, add)
    publish(root, LESSON.replace("# %%\nFULL", "# %% [markdown]\n# A new cell\n\n# %%\nFULL"))
    update.update(root)
    texts = [cell.source for cell in read(root).cells]
    assert texts[texts.index("my_own = 1") - 1] == 'print("a look at it")'
    assert any("A new cell" in text for text in texts)


def test_a_changed_cell_that_moved_stays_the_students(root):
    def change(cells, _):
        next(c for c in cells.values() if "a look" in c.source).source = "print('my look')"

    edit(root, change)
    publish(root, LESSON.replace("# %%\nFULL", "# %% [markdown]\n# A new cell\n\n# %%\nFULL"))
    report, _ = update.update(root)
    texts = [cell.source for cell in read(root).cells]
    assert texts.count("print('my look')") == 1
    assert 'print("a look at it")' not in texts
    assert len(report) == 1


def test_a_cell_that_both_changed_is_there_twice(root):
    def change(cells, _):
        next(c for c in cells.values() if "a look" in c.source).source = "print('my look')"

    edit(root, change)
    publish(root, LESSON.replace("a look at it", "the course's look"))
    report, _ = update.update(root)
    assert "changed by you and by the course" in report[1]
    cells = read(root).cells
    place = next(i for i, cell in enumerate(cells) if "the course's look" in cell.source)
    assert "print('my look')" in cells[place + 1].source
    assert cells[place + 1].cell_type == "markdown"  # shown, not run a second time


def test_an_answer_under_another_id_is_known_by_its_name(root):
    def retype(cells, everything):
        everything.remove(cells["exercise-double"])
        everything.insert(3, nbformat.v4.new_code_cell(ANSWER))

    edit(root, retype)
    publish(root, LESSON.replace("Twice as much", "The double"))
    update.update(root)
    assert sources(root)["exercise-double"] == ANSWER
    assert [cell.source for cell in read(root).cells].count(ANSWER) == 1


def test_deleted_and_moved_cells_are_back_in_their_place(root):
    def shuffle(cells, everything):
        everything.remove(cells["check-half"])
        everything.append(everything.pop(0))

    edit(root, shuffle)
    new = publish(root, LESSON.replace("Half as much", "The half"))
    update.update(root)
    assert [cell.source for cell in read(root).cells] == [cell.source for cell in new.cells]


def test_a_notebook_that_cannot_be_read_stays_and_others_go_on(root):
    (root / "work" / "01.ipynb").write_text("{ not a notebook")
    publish(root, LESSON.replace("First", "Better"))
    (root / "notebooks" / "02.ipynb").write_text((root / "notebooks" / "01.ipynb").read_text())
    report, readable = update.update(root)
    assert not readable
    assert report[0] == "new in work/, for you to work in: 02"
    assert "cannot be read" in report[1]
    assert len(report) == 2
    assert (root / "work" / "01.ipynb").read_text() == "{ not a notebook"
    assert (root / "work" / "02.ipynb").exists()


def test_a_lesson_that_is_gone_leaves_its_copy(root):
    edit(root, answer)
    (root / "notebooks" / "01.ipynb").unlink()
    report, _ = update.update(root)
    assert report == ["01: no lesson of the course is called so; your file stays"]
    assert sources(root)["exercise-double"] == ANSWER


def test_backups_are_never_overwritten(root):
    kept = set()
    for number in range(3):
        edit(root, lambda cells, _, n=number: cells["exercise-double"].update(source=f"x = {n}"))
        publish(root, LESSON.replace("First words", f"Words {number}"))
        update.update(root)
        kept |= {path.read_text() for path in (root / "work" / "backup").iterdir()}
    assert len(list((root / "work" / "backup").iterdir())) == 3
    assert all(any(f"x = {number}" in text for text in kept) for number in range(3))


def test_edits_in_notebooks_go_on_in_work(tmp_path):
    (tmp_path / "lessons").mkdir()
    (tmp_path / "notebooks").mkdir()
    publish(tmp_path, LESSON)
    path = tmp_path / "notebooks" / "01.ipynb"
    notebook = nbformat.read(path, as_version=4)
    answer({cell.id: cell for cell in notebook.cells}, None)
    nbformat.write(notebook, path)
    report, _ = update.update(tmp_path)
    assert "your edits in notebooks/ go on in work/" in report[1]
    assert sources(tmp_path)["exercise-double"] == ANSWER


def test_a_write_that_is_cut_off_leaves_the_old_file(root, monkeypatch):
    edit(root, answer)
    before = (root / "work" / "01.ipynb").read_text()
    publish(root, LESSON.replace("First words", "Better words"))

    def fails(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", fails)
    report, well = update.update(root)
    assert not well
    assert "no space left" in report[0]
    assert not list((root / "work").glob("*.part"))
    assert (root / "work" / "01.ipynb").read_text() == before


# Histories: a student and a course that both go on, at random


class Student:
    """Edits a copy at random; `written` is every line that is the student's own."""

    def __init__(self, random):
        self.random, self.written = random, set()

    def line(self, prefix="x = "):
        line = f"{prefix}'mine {len(self.written)}'"
        self.written.add(line)
        return line

    def forget(self, cell):
        self.written -= {line.strip() for line in cell.source.splitlines()}

    def edit(self, notebook):
        cells = notebook.cells
        for _ in range(self.random.randint(1, 6)):
            cell = self.random.choice(cells)
            action = self.random.choice(
                ["answer", "answer", "append", "rewrite", "insert", "delete", "move", "retype"]
            )
            if action == "answer":
                cell = next((c for c in cells if c.id.startswith("exercise-")), cell)
            if action in ("answer", "append"):
                cell.source += f"\n    {self.line()}" if cell.cell_type == "code" else ""
            elif action == "rewrite":
                self.forget(cell)
                cell.source = self.line("" if cell.cell_type == "markdown" else "y = ")
            elif action == "insert":
                make = self.random.choice(
                    [nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell]
                )
                cells.insert(self.random.randint(0, len(cells)), make(self.line("z ")))
            elif action == "delete" and len(cells) > 3:
                self.forget(cell)
                cells.remove(cell)
            elif action == "move":
                cells.remove(cell)
                cells.insert(self.random.randint(0, len(cells)), cell)
            elif action == "retype":
                cell.id = nbformat.v4.new_code_cell().id


class Course:
    """Changes a lesson at random, as its authors may."""

    def __init__(self, random):
        self.random, self.text, self.number = random, LESSON, 0

    def edit(self):
        for _ in range(self.random.randint(1, 4)):
            self.number += 1
            blocks = re.split(r"(?m)^(?=# %%)", self.text)
            action = self.random.choice(["word", "scaffold", "cell", "drop", "exercise", "remove"])
            place = self.random.randint(2, len(blocks) - 1)
            if action == "word":
                self.text = self.text.replace("much", f"much {self.number}")
            elif action == "scaffold":
                self.text = self.text.replace("# TODO:", f"# TODO {self.number}:", 1)
            elif action in ("cell", "drop"):
                plain = [i for i, b in enumerate(blocks) if b.startswith("# %%\nprint")]
                if action == "cell" or not plain:
                    while place < len(blocks) and 'tags=["check"]' in blocks[place]:
                        place += 1  # a check follows its exercise
                    blocks.insert(place, f"# %%\nprint({self.number})\n\n")
                else:
                    del blocks[self.random.choice(plain)]
                self.text = "".join(blocks)
            elif action == "exercise":
                source = LESSON[LESSON.index("# %% [markdown]\n# ### Exercise 2") :]
                source = source[: source.index('# %%\nprint("another')]
                self.text += "\n" + source.replace("half", f"half_{self.number}")
            elif action == "remove" and self.text.count('tags=["check"]') > 1:
                index = next(i for i, b in enumerate(blocks) if 'tags=["exercise"]' in b)
                checks = [i for i, b in enumerate(blocks) if 'tags=["check"]' in b and i > index]
                del blocks[checks[0]], blocks[index]
                self.text = "".join(blocks)
        return self.text


@pytest.mark.parametrize("seed", range(100))
def test_no_line_of_a_student_is_lost_in_histories_of_edits_on_both_sides(root, seed):
    generator = random.Random(seed)
    student, course = Student(generator), Course(generator)
    for _ in range(4):
        notebook = read(root)
        student.edit(notebook)
        nbformat.write(notebook, root / "work" / "01.ipynb")
        new = publish(root, course.edit())
        report, readable = update.update(root)
        assert readable, report
        merged = read(root)
        nbformat.validate(merged)
        text = "\n".join(cell.source for cell in merged.cells)
        lost = [line for line in student.written if line not in text]
        assert not lost, report
        # and the lesson is whole: every cell of it, or the student's version in its place
        assert not report or {cell.id for cell in new.cells} <= {cell.id for cell in merged.cells}


# Notebooks as other programs, other people and accidents leave them


def raw(root):
    return json.loads((root / "work" / "01.ipynb").read_text(encoding="utf-8"))


def write_raw(root, notebook, **options):
    text = json.dumps(notebook, ensure_ascii=False, indent=1)
    (root / "work" / "01.ipynb").write_text(text, **{"encoding": "utf-8", **options})


def without_ids(notebook):
    for cell in notebook["cells"]:
        del cell["id"]


def with_fresh_ids(notebook):
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"fresh-{number}"


def without_sources(notebook):
    without_ids(notebook)
    del notebook["cells"][0]["source"]


def without_outputs(notebook):
    for cell in notebook["cells"]:
        cell.pop("outputs", None)
        cell.pop("metadata", None)
        cell.pop("execution_count", None)


def with_strange_ids(notebook):
    for cell in notebook["cells"]:
        cell["id"] = "with blanks, and much too long " * 9


@pytest.mark.parametrize("minor", range(6))
@pytest.mark.parametrize(
    "damage", [without_ids, with_fresh_ids, without_sources, without_outputs, with_strange_ids]
)
def test_a_copy_of_any_format_is_updated_without_loss_or_doubles(root, damage, minor):
    def change(cells, everything):
        answer(cells, everything)
        everything.insert(3, nbformat.v4.new_code_cell("my_own = 1"))
        next(c for c in everything if "a look" in c.source).source = "print('a look at my own')"

    edit(root, change)
    notebook = raw(root)
    damage(notebook)
    notebook["nbformat_minor"] = minor
    write_raw(root, notebook)
    new = publish(root, LESSON.replace("Twice as much", "The double").replace("other look", "end"))
    report, well = update.update(root)
    assert well, report
    merged = read(root)
    nbformat.validate(merged)
    assert sources(root)["exercise-double"] == ANSWER
    texts = [cell.source for cell in merged.cells]
    assert texts.count("my_own = 1") == 1
    assert texts.count("print('a look at my own')") == 1
    assert 'print("a look at it")' not in texts
    assert 'print("anend")' in texts
    assert len(merged.cells) == len(new.cells) + 1  # every lesson cell once, and the own one


def test_windows_line_ends_and_a_mark_change_nothing(root):
    edit(root, answer)
    notebook = raw(root)
    for cell in notebook["cells"]:
        cell["source"] = cell["source"] if isinstance(cell["source"], list) else [cell["source"]]
        cell["source"] = [line.replace("\n", "\r\n") for line in cell["source"]]
    write_raw(root, notebook, encoding="utf-8-sig")
    new = publish(root, LESSON.replace("First words", "Better words"))
    report, well = update.update(root)
    assert (len(report), well) == (1, True)
    merged = read(root)
    assert [c.source for c in merged.cells if c.id != "exercise-double"] == [
        c.source for c in new.cells if c.id != "exercise-double"
    ]
    assert sources(root)["exercise-double"] == ANSWER


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{\n<<<<<<< HEAD\n "cells": []\n=======\n', "git's marks of a merge conflict"),
        ("", "an empty file"),
        ('{"cells": 3}', "it has no cells"),
        ("[" * 100_000, "no JSON"),
        ("\x00\x01", "no JSON"),
    ],
)
def test_a_bad_copy_costs_only_itself_and_the_line_says_why(root, text, says):
    (root / "work" / "01.ipynb").write_text(text)
    publish(root, LESSON.replace("First", "Better"))
    other = (root / "notebooks" / "01.ipynb").read_text()
    (root / "notebooks" / "02.ipynb").write_text(other)
    report, well = update.update(root)
    assert not well
    assert says in "\n".join(report)
    assert (root / "work" / "01.ipynb").read_text() == text
    assert (root / "work" / "02.ipynb").exists()


def test_pasted_pictures_a_kernel_of_ones_own_and_metadata_stay(root):
    picture = {"image.png": {"image/png": "iVBORw0KGgo="}}

    def change(cells, everything):
        cells["cell-00"].source += "\n\n![](attachment:image.png)"
        cells["cell-00"].attachments = picture
        everything.append(nbformat.v4.new_markdown_cell("mine", attachments=picture))

    edit(root, change)
    notebook = raw(root)
    notebook["metadata"]["kernelspec"] = {"name": "mine", "display_name": "Mine"}
    notebook["metadata"]["my_tool"] = {"open": True}
    write_raw(root, notebook)
    publish(root, LESSON.replace("First words", "Better words"))
    _, well = update.update(root)
    assert well
    merged = read(root)
    nbformat.validate(merged)
    assert merged.metadata.kernelspec.name == "mine"
    assert merged.metadata.my_tool == {"open": True}
    for cell in merged.cells:
        if "attachment:" in cell.source or cell.source == "mine":
            assert cell.attachments == picture
    assert sum("attachments" in cell for cell in merged.cells) == 2


def test_a_link_in_work_stays_a_link(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("cloud") / "mine.ipynb"
    edit(root, answer)
    copy = root / "work" / "01.ipynb"
    copy.rename(elsewhere)
    copy.symlink_to(elsewhere)
    publish(root, LESSON.replace("First words", "Better words"))
    _, well = update.update(root)
    assert well
    assert copy.is_symlink()
    assert "Better words" in elsewhere.read_text()


def test_a_folder_that_cannot_be_written_is_a_line_and_nothing_is_lost(root, monkeypatch):
    edit(root, answer)
    before = (root / "work" / "01.ipynb").read_text()
    publish(root, LESSON.replace("First words", "Better words"))

    def fails(source, target):
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr("shutil.copy2", fails)
    report, well = update.update(root)
    assert not well
    assert len(report) == 1
    assert report[0].startswith("01: not updated: ")
    assert report[0].endswith("Permission denied")
    assert (root / "work" / "01.ipynb").read_text() == before


def test_a_damaged_base_does_not_stop_an_update(root):
    edit(root, answer)
    (root / "work" / ".base" / "01.ipynb").write_text("{")
    publish(root, LESSON.replace("First words", "Better words"))
    report, well = update.update(root)
    assert well, report
    assert sources(root)["exercise-double"] == ANSWER


def test_a_second_copy_is_left_alone(root):
    edit(root, answer)
    copy = root / "work" / "01-Copy1.ipynb"
    copy.write_text((root / "work" / "01.ipynb").read_text())
    before = copy.read_text()
    publish(root, LESSON.replace("First words", "Better words"))
    report, well = update.update(root)
    assert well
    assert "01-Copy1: no lesson of the course is called so; your file stays" in report
    assert copy.read_text() == before
