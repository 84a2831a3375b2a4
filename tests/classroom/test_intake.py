"""What was handed in, as people and platforms leave it: who, which lesson, which version counts."""

import io
import json
import os
import tarfile
import zipfile

import nbformat
import pytest

from course import lesson_files
from course.classroom import archives
from course.classroom.intake import take_in

LESSONS = {
    path.stem: lesson_files.read_lesson(path)
    for path in sorted((lesson_files.ROOT / "lessons").glob("*.py"))
}
VIT, STEM = "01_vit_recap", "02_cnn_stem_hybrid"


def text(lesson, change=lambda notebook: None):
    notebook = json.loads((lesson_files.ROOT / "notebooks" / f"{lesson}.ipynb").read_text())
    change(notebook)
    return json.dumps(notebook)


@pytest.fixture(scope="module")
def notebooks():
    return {lesson: text(lesson) for lesson in (VIT, STEM)}


def put(path, content, age=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))


def seen(folder):
    found = take_in(folder, LESSONS)
    return {(s.student.label, s.lesson): s for s in found.submissions}, found


@pytest.mark.parametrize(
    ("place", "student"),
    [
        ("alice/01_vit_recap.ipynb", "alice"),
        ("alice/week 1/my homework.ipynb", "alice"),
        ("alice/Copy of 01_vit_recap (1).ipynb", "alice"),
        ("alice/01_vit_recap-Copy1.ipynb", "alice"),
        ("alice/work/01_vit_recap.ipynb", "alice"),
        ("Anna Müller_12345_assignsubmission_file_/01_vit_recap.ipynb", "Anna Müller (12345)"),
        ("Anna Müller_12345_assignsubmission_file_01_vit_recap.ipynb", "Anna Müller (12345)"),
        ("Anna Müller_12345_assignsubmission_file/01.ipynb", "Anna Müller (12345)"),
        ("muelleranna_4711_998877_01_vit_recap-1.ipynb", "muelleranna (4711)"),
        ("muelleranna_LATE_4711_998877_01_vit_recap.ipynb", "muelleranna (4711)"),
        ("alice_01_vit_recap.ipynb", "alice"),
        ("01_vit_recap_alice.ipynb", "alice"),
        ("Mu\u0308ller/01.ipynb", "M\u00fcller"),
    ],
)
def test_who_and_which_lesson(tmp_path, notebooks, place, student):
    put(tmp_path / place, notebooks[VIT])
    put(tmp_path / "bob" / "02.ipynb", notebooks[STEM])
    found, intake = seen(tmp_path)
    assert set(found) == {(student, VIT), ("bob", STEM)}
    assert intake.problems == []


def test_a_students_own_folder_is_one_student(tmp_path, notebooks):
    put(tmp_path / "carol" / "01_vit_recap.ipynb", notebooks[VIT])
    put(tmp_path / "carol" / "02_cnn_stem_hybrid.ipynb", notebooks[STEM])
    assert set(seen(tmp_path / "carol")[0]) == {("carol", VIT), ("carol", STEM)}


def test_the_lesson_follows_from_the_exercises_not_from_the_name(tmp_path, notebooks):
    put(tmp_path / "alice" / "01_vit_recap.ipynb", notebooks[STEM])
    assert set(seen(tmp_path)[0]) == {("alice", STEM)}


def test_of_a_clone_only_work_counts(tmp_path, notebooks):
    clone = tmp_path / "alice"
    put(clone / "work" / "01_vit_recap.ipynb", notebooks[VIT], age=99)
    for other in ("notebooks", "solutions", "work/backup", "work/base", "work/.base", ".git"):
        put(clone / other / "01_vit_recap.ipynb", notebooks[VIT])
    put(clone / "lessons" / "01_vit_recap.py", "")
    found, _ = seen(tmp_path)
    assert found["alice", VIT].path == "alice/work/01_vit_recap.ipynb"
    assert found["alice", VIT].note == ""


def test_of_a_clone_without_work_the_notebooks_count_and_never_the_solutions(tmp_path, notebooks):
    clone = tmp_path / "alice"
    put(clone / "notebooks" / "01_vit_recap.ipynb", notebooks[VIT], age=99)
    put(clone / "solutions" / "01_vit_recap.ipynb", notebooks[VIT])
    put(clone / "lessons" / "01_vit_recap.py", "")
    assert seen(tmp_path)[0]["alice", VIT].path == "alice/notebooks/01_vit_recap.ipynb"


def test_the_newest_of_two_versions_counts_and_a_line_says_so(tmp_path, notebooks):
    put(tmp_path / "alice" / "01_vit_recap.ipynb", notebooks[VIT], age=100)
    put(tmp_path / "alice" / "01_vit_recap (1).ipynb", notebooks[VIT], age=1)
    put(tmp_path / "alice" / "old" / "01_vit_recap.ipynb", "{", age=0)  # newer, but unreadable
    submission = seen(tmp_path)[0]["alice", VIT]
    assert submission.path == "alice/01_vit_recap (1).ipynb"
    assert submission.note.startswith("3 versions: alice/01_vit_recap (1).ipynb counts")


def zip_of(files, compression=zipfile.ZIP_DEFLATED):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def test_archives_of_students_of_the_class_and_in_each_other(tmp_path, notebooks):
    vit, stem = notebooks[VIT], notebooks[STEM]
    folder = tmp_path / "students"
    folder.mkdir()
    (folder / "alice.zip").write_bytes(zip_of({"work/01_vit_recap.ipynb": vit}))
    with tarfile.open(folder / "bob.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("home/02.ipynb")
        member.size = len(stem.encode())
        archive.addfile(member, io.BytesIO(stem.encode()))
    assert set(seen(folder)[0]) == {("alice", VIT), ("bob", STEM)}
    inner = zip_of({"01_vit_recap.ipynb": vit})
    of_class = zip_of({"Anna_12_assignsubmission_file_/hw.zip": inner, "bob/02.ipynb": stem})
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "class.zip").write_bytes(of_class)
    expected = {("Anna (12)", VIT), ("bob", STEM)}
    assert set(seen(whole)[0]) == expected
    assert set(seen(whole / "class.zip")[0]) == expected


def test_absolute_paths_and_ways_up_in_archives_lead_nowhere(tmp_path, notebooks):
    names = ["/01_vit_recap.ipynb", "../../02_cnn_stem_hybrid.ipynb"]
    content = dict(zip(names, (notebooks[VIT], notebooks[STEM]), strict=True))
    folder = tmp_path / "in" / "class"
    folder.mkdir(parents=True)
    (folder / "mallory.zip").write_bytes(zip_of(content))
    put(folder / "bob" / "01.ipynb", notebooks[VIT])
    before = sorted(tmp_path.rglob("*"))
    found, _ = seen(folder)
    assert {key for key in found if key[0] == "mallory"} == {("mallory", VIT), ("mallory", STEM)}
    assert sorted(tmp_path.rglob("*")) == before


def test_bombs_are_a_problem_of_their_own_student(tmp_path, notebooks, monkeypatch):
    monkeypatch.setattr(archives, "UNPACKED", 3_000_000)
    put(tmp_path / "bob" / "01.ipynb", notebooks[VIT])
    zeros = bytes(1_000_000)
    (tmp_path / "large.zip").write_bytes(zip_of({f"{n}.ipynb": zeros for n in range(9)}))
    nested = zip_of({"0.ipynb": zeros})
    for _ in range(6):
        nested = zip_of({"deeper.zip": nested})
    (tmp_path / "deep.zip").write_bytes(nested)
    (tmp_path / "broken.zip").write_bytes(zip_of({"01.ipynb": notebooks[VIT]})[:-40])
    with tarfile.open(tmp_path / "tar.tgz", "w:gz") as archive:
        for number in range(9):
            member = tarfile.TarInfo(f"{number}.ipynb")
            member.size = len(zeros)
            archive.addfile(member, io.BytesIO(zeros))
    found, intake = seen(tmp_path)
    assert ("bob", VIT) in found
    problems: dict = {}
    for path, problem in intake.problems:
        student = path.partition("/")[0]
        problems[student] = problems.get(student, "") + problem
    assert "unpacks to more than" in problems["large"]
    assert "archives in archives" in problems["deep"]
    assert "cannot be read" in problems["broken"] or "damaged" in problems["broken"]
    assert "unpacks to more than" in problems["tar"]


def test_links_are_not_followed(tmp_path, notebooks):
    put(tmp_path / "bob" / "01_vit_recap.ipynb", notebooks[VIT])
    (tmp_path / "mallory").mkdir()
    (tmp_path / "mallory" / "01_vit_recap.ipynb").symlink_to(
        tmp_path / "bob" / "01_vit_recap.ipynb"
    )
    (tmp_path / "eve").symlink_to(tmp_path / "bob")
    found, intake = seen(tmp_path)
    assert found["mallory", VIT].notebook is None
    assert "link" in found["mallory", VIT].problem
    assert not any(student == "eve" for student, _ in found)
    assert "eve" not in [student.label for student in intake.students]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{\n<<<<<<< HEAD\n", "merge conflict"),
        ("", "empty file"),
        ("[]", "no notebook"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_damaged_notebook_is_of_the_lesson_of_its_name_and_says_why(tmp_path, content, says):
    put(tmp_path / "alice" / "01_vit_recap.ipynb", content)
    submission = seen(tmp_path)[0]["alice", VIT]
    assert submission.notebook is None
    assert says in submission.problem


def without_ids(notebook):
    for cell in notebook["cells"]:
        del cell["id"]
    notebook["nbformat_minor"] = 0


def with_bare_cells(notebook):
    notebook["cells"] = [
        {"cell_type": cell["cell_type"], "source": cell["source"]} for cell in notebook["cells"]
    ]
    notebook["cells"].append({"cell_type": "code"})
    notebook["cells"].append("no cell")


def with_windows_ends(notebook):
    for cell in notebook["cells"]:
        cell["source"] = [line.replace("\n", "\r\n") for line in cell["source"]]


def with_timing(notebook):
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = ["%%time\n", *cell["source"]]
            cell["id"] = f"timed-{len(cell['source'])}"


@pytest.mark.parametrize("damage", [without_ids, with_bare_cells, with_windows_ends, with_timing])
def test_notebooks_of_any_format_are_known(tmp_path, damage):
    put(tmp_path / "alice" / "hw.ipynb", text(VIT, damage))
    notebook = seen(tmp_path)[0]["alice", VIT].notebook
    assert notebook is not None
    assert "\r" not in "".join(cell.source for cell in notebook.cells)


def test_old_formats_and_marks(tmp_path):
    current = nbformat.reads(text(VIT), as_version=4)
    old = nbformat.convert(current, 3)
    put(tmp_path / "alice" / "hw.ipynb", nbformat.writes(old, version=3))
    (tmp_path / "bob").mkdir()
    (tmp_path / "bob" / "hw.ipynb").write_text(text(VIT), encoding="utf-8-sig")
    (tmp_path / "carl").mkdir()
    (tmp_path / "carl" / "hw.ipynb").write_text(text(VIT), encoding="utf-16")
    assert set(seen(tmp_path)[0]) == {("alice", VIT), ("bob", VIT), ("carl", VIT)}


def test_who_handed_in_nothing_is_of_the_class(tmp_path, notebooks):
    put(tmp_path / "alice" / "01.ipynb", notebooks[VIT])
    (tmp_path / "bob").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    put(tmp_path / "carl" / "essay.ipynb", '{"cells": [], "nbformat": 4, "metadata": {}}')
    found, intake = seen(tmp_path)
    assert [student.label for student in intake.students] == ["alice", "bob", "carl"]
    assert [key[0] for key in found] == ["alice"]
    assert intake.problems == [("carl/essay.ipynb", "it has no exercise of the course")]


def test_modules_beside_a_notebook_come_along(tmp_path, notebooks):
    put(tmp_path / "alice" / "01.ipynb", notebooks[VIT])
    put(tmp_path / "alice" / "helpers.py", "x = 1")
    put(tmp_path / "alice" / "sub" / "other.py", "x = 2")
    assert seen(tmp_path)[0]["alice", VIT].files == {"helpers.py": b"x = 1"}


@pytest.mark.parametrize("lesson", LESSONS)
@pytest.mark.parametrize("folder", ["notebooks", "solutions"])
def test_every_notebook_of_the_course_is_of_its_own_lesson(lesson, folder, tmp_path):
    """Also without ids, and under another name: lessons import what earlier ones define."""
    notebook = json.loads((lesson_files.ROOT / folder / f"{lesson}.ipynb").read_text())
    without_ids(notebook)
    put(tmp_path / "alice" / "hw.ipynb", json.dumps(notebook))
    assert set(seen(tmp_path)[0]) == {("alice", lesson)}
