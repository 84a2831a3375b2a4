"""Grading a class from the shell: what comes out, that it is right, and that nothing is lost."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest

from course import grade, lesson_files
from course.classroom import container, engine, kernel
from tests.checks.harness import exercise_cells, lesson

pytestmark = pytest.mark.slow
NAME = "02_cnn_stem_hybrid"
LESSON = lesson_files.read_lesson(lesson_files.ROOT / "lessons" / f"{NAME}.py")


def notebook(*solved, wrong=""):
    made = lesson_files.student_version(LESSON)
    for cell in made.cells:
        exercise = cell.id.removeprefix("exercise-")
        if exercise in solved:
            cell.source = exercise_cells(NAME)[exercise]
        if exercise == wrong:
            _, old, new, _ = next(w for w in lesson(2).wrong if w[0] == wrong)
            cell.source = exercise_cells(NAME)[exercise].replace(old, new)
    return made


def write_class(folder):
    """All solved, one exercise, a mistake, what cannot be read, and nothing."""
    for name, made in {
        "alice": notebook("cnn-stem", "coatnet-hybrid"),
        "Bob Müller_77_assignsubmission_file_": notebook("cnn-stem"),
        "carol": notebook("coatnet-hybrid", wrong="cnn-stem"),
    }.items():
        (folder / name).mkdir(parents=True)
        nbformat.write(made, folder / name / f"{NAME}.ipynb")
    (folder / "dave").mkdir()
    (folder / "dave" / f"{NAME}.ipynb").write_text("<<<<<<< HEAD")
    (folder / "erin").mkdir()


@pytest.fixture
def submissions(tmp_path):
    write_class(tmp_path / "in")
    return tmp_path / "in"


def where(jailed):
    return [] if jailed else ["--trust"]


def rows(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


EXPECTED = {  # student -> outcomes of both exercises
    "alice": ("passed", "passed"),
    "Bob Müller (77)": ("passed", "not attempted"),
    "carol": ("failing", "passed"),
    "dave": ("failing", "failing"),
}


def test_a_class(submissions, tmp_path, jailed, capsys):
    out = tmp_path / "grades"
    points = tmp_path / "points.csv"
    points.write_text("lesson,exercise,points\n2,CNNStem,3\n02,2,1.5\n")
    arguments = [str(submissions), "--out", str(out), "--lessons", "2", *where(jailed)]
    assert grade.main([*arguments, "--points", str(points), "--deadline", "2020-01-01"]) == 0
    graded = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    outcomes = {one["student"]: tuple(row["outcome"] for row in one["rows"]) for one in graded}
    assert outcomes == {name: EXPECTED[name] for name in EXPECTED if name != "dave"}
    table = {row["Student"]: row for row in rows(out / "grades.csv")}
    totals = {name: float(row["Total"]) for name, row in table.items()}
    assert totals == {"alice": 4.5, "Bob Müller": 3, "carol": 1.5, "dave": 0, "erin": 0}
    assert table["alice"]["02.1 CNNStem"] == "3"
    assert float(table["alice"]["Hours late"]) > 0
    assert float(table["erin"]["Hours late"]) == 0
    # Moodle reads these three by name, and the participant's number from the end of the first:
    # mod/assign/feedback/offline/importgradeslib.php
    (moodle,) = rows(out / "moodle.csv")
    assert (moodle["Identifier"], moodle["Grade"]) == ("Participant 77", "3")
    assert "Last modified (grade)" in moodle
    # Canvas wants these five first, then assignments, and maxima in the row of "Points Possible":
    # lib/gradebook_importer.rb
    canvas = rows(out / "canvas.csv")
    assert list(canvas[0]) == [
        *("Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Lesson 02"),
    ]
    assert "Points Possible" in canvas[0]["Student"]
    assert canvas[0]["Lesson 02"] == "4.5"
    assert {row["Student"]: row["Lesson 02"] for row in canvas}["carol"] == "1.5"
    page = (out / "index.html").read_text()
    hint = next(w[-1] for w in lesson(2).wrong if w[0] == "cnn-stem").split("|")[0]
    assert "5 students" in page
    assert "commonest mistakes" in page
    assert hint in page or "expected" in page
    said = capsys.readouterr().out
    assert "merge conflict" in (out / "feedback" / "dave.txt").read_text()
    assert "not handed in" in (out / "feedback" / "erin.txt").read_text()
    assert "4.5 of 4.5 points" in (out / "feedback" / "alice.txt").read_text()
    assert "hours after the deadline" in said
    assert len(list((out / "feedback").iterdir())) == 5


def test_grading_again_grades_only_what_has_changed(submissions, tmp_path, jailed, capfd):
    out = tmp_path / "grades"
    arguments = [str(submissions), "--out", str(out), "--lessons", "2", *where(jailed)]
    assert grade.main(arguments) == 0
    before = (out / "results.jsonl").read_text()
    assert before.count("\n") == 3
    capfd.readouterr()
    assert grade.main(arguments) == 0
    assert "4 of 4 notebooks are graded already" in capfd.readouterr().err
    assert (out / "results.jsonl").read_text() == before
    nbformat.write(notebook("cnn-stem"), submissions / "alice" / f"{NAME}.ipynb")
    assert grade.main(arguments) == 0
    after = (out / "results.jsonl").read_text()
    assert after.startswith(before)
    assert after.count("\n") == 4
    table = {row["Student"]: row for row in rows(out / "grades.csv")}
    assert table["alice"]["Total"] == "1"


def test_killed_half_way_and_started_again_nothing_is_lost_or_graded_twice(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "grades"
    for number in range(12):
        (folder / f"student {number}").mkdir(parents=True)
        made = notebook("cnn-stem", "coatnet-hybrid")
        made.cells[2].source += f"\n# {number}"
        nbformat.write(made, folder / f"student {number}" / f"{NAME}.ipynb")
    command = [sys.executable, "-m", "course.grade", str(folder), "--out", str(out), "--jobs", "1"]
    command += ["--lessons", "2"]
    results = out / "results.jsonl"
    first = subprocess.Popen(
        command, cwd=lesson_files.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while not results.exists() or results.read_text().count("\n") < 3:
        if first.poll() is not None:
            pytest.skip(f"no sandbox here: {first.stderr.read().decode()}")
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = results.read_bytes()
    assert 3 <= before.count(b"\n") < 12
    results.write_bytes(before + b'{"student": "torn')  # as if killed while it was writing
    again = subprocess.run(command, cwd=lesson_files.ROOT, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    students = [line["student"] for line in lines]
    assert results.read_bytes().startswith(before)
    assert sorted(students) == sorted(f"student {number}" for number in range(12))
    assert all(row["outcome"] == "passed" for line in lines for row in line["rows"])


def test_two_graders_do_not_write_one_folder(submissions, tmp_path, capsys):
    from course.classroom.store import Store

    out = tmp_path / "grades"
    out.mkdir()
    with Store(out / "results.jsonl"), pytest.raises(SystemExit) as ended:
        grade.main([str(submissions), "--out", str(out), "--lessons", "2"])
    assert ended.value.code == 2
    assert "another grader" in capsys.readouterr().err


def test_a_cluster_grades_as_threads_do(submissions, tmp_path, jailed):
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "grades"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        address = cluster.scheduler_address
        arguments = [str(submissions), "--out", str(out), "--lessons", "2", "--dask", address]
        assert grade.main([*arguments, *where(jailed)]) == 0
    graded = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    outcomes = {one["student"]: tuple(row["outcome"] for row in one["rows"]) for one in graded}
    assert outcomes == {name: EXPECTED[name] for name in EXPECTED if name != "dave"}


def test_all_wrong_answers_of_the_tests_get_the_same_verdicts_from_all_engines(
    warm, jailed, tmp_path
):
    """Of lesson 2, each alone: kernels, forks, forks in a sandbox."""
    cases = [w for w in lesson(2).wrong if w[0] == "cnn-stem"][:6]
    assert len(cases) == 6
    for _, old, new, _ in cases:
        made = notebook("coatnet-hybrid")
        cell = next(c for c in made.cells if c.id == "exercise-cnn-stem")
        cell.source = exercise_cells(NAME)["cnn-stem"].replace(old, new)
        found = [
            engine.run_notebook(NAME, made, LESSON, sessions, tmp_path, 60)
            for sessions in (kernel.Kernel, warm, jailed)
            if sessions
        ]
        assert found[0][0].outcome == "failing"
        assert all(rows == found[0] for rows in found), found


def test_no_sandbox_is_said_and_nothing_is_run(submissions, tmp_path, monkeypatch, capsys):
    def fails(where):
        raise RuntimeError("unshare: Operation not permitted")

    monkeypatch.setattr(grade, "sessions_for", fails)
    with pytest.raises(SystemExit) as ended:
        grade.main([str(submissions), "--out", str(tmp_path / "grades"), "--lessons", "2"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "--container" in said
    assert "--trust" in said
    assert (tmp_path / "grades" / "results.jsonl").read_text() == ""


FAKE = """#!{python}
import os, subprocess, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    print(arguments, file=log)
if arguments[0] == "run":
    start = arguments.index("an-image")
    os.environ["PYTHONPATH"] = {root!r}
    os.chdir({scratch!r})
    os.execv(sys.executable, [sys.executable, *arguments[start + 2:]])
"""


def test_a_container_for_each_notebook(submissions, tmp_path, monkeypatch):
    """With a stand-in for docker that runs what it is told outside, and writes down how."""
    program, log = tmp_path / "bin" / "podman", tmp_path / "log"
    program.parent.mkdir()
    (tmp_path / "scratch").mkdir()
    settings = {"log": str(log), "root": str(lesson_files.ROOT), "python": sys.executable}
    program.write_text(FAKE.format(scratch=str(tmp_path / "scratch"), **settings))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    out = tmp_path / "grades"
    arguments = [str(submissions), "--out", str(out), "--lessons", "2", "--jobs", "2"]
    assert grade.main([*arguments, "--container", "an-image"]) == 0
    graded = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    outcomes = {one["student"]: tuple(row["outcome"] for row in one["rows"]) for one in graded}
    assert outcomes == {name: EXPECTED[name] for name in EXPECTED if name != "dave"}
    runs = [line for line in log.read_text().splitlines() if line.startswith("['run'")]
    assert len(runs) == 3
    for line in runs:
        assert all(f"'{option}'" in line for option in container.LIMITS)
        assert "solutions" not in line


def test_container_without_docker(submissions, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SystemExit):
        grade.main([str(submissions), "--out", str(tmp_path / "out"), "--container", "other"])
    assert "needs podman or docker" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/no/such/folder"], "there is no"),
        (["{empty}"], "no notebook of the course"),
        (["{in}", "--lessons", "99"], "there is no lesson 99"),
        (["{in}", "--points", "/no/such/file"], "No such file"),
        (["{in}", "--points", "{bad}"], "no line of lesson, exercise, points"),
        (["{in}", "--jobs", "0"], "more than 0"),
        (["{in}", "--deadline", "tomorrow"], "invalid"),
        (["{in}", "--dask", "127.0.0.1:1"], "no scheduler at"),
    ],
)
def test_a_wrong_call_is_exit_code_2_and_one_line(submissions, tmp_path, arguments, says, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.csv").write_text("02,9,1\n")
    places = {"in": submissions, "empty": tmp_path / "empty", "bad": tmp_path / "bad.csv"}
    arguments = [a.format(**places) for a in arguments]
    with pytest.raises(SystemExit) as ended:
        grade.main([*arguments, "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("python -m course.grade: error:")
    assert says in last
