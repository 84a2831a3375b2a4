"""How long a class takes to grade, what it holds in memory, and whether verdicts are those of
grading alone.

    python benchmarks/grading.py                       # 300 students, the whole course
    python benchmarks/grading.py --lessons 5           # one lesson
    python benchmarks/grading.py --alone 40            # 40 of the notebooks in kernels, each alone
    python benchmarks/grading.py --nbgrader PYTHON     # beside it, 10 of them through nbgrader

The class is made from the solutions, the tests' wrong answers, half-filled, empty, damaged and
missing notebooks, the same for a seed. PYTHON is that of an environment with nbgrader 0.9.6 (and
nothing of the course: notebooks run in this one).
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil

from course import lesson_files
from course.classroom import engine, nbgrader
from course.classroom.kernel import Kernel
from course.classroom.tables import Points
from tests.checks.harness import Lesson, lessons

KINDS = {"solved": 45, "mistaken": 30, "begun": 12, "empty": 8, "damaged": 2, "missing": 3}


def notebook(lesson: Lesson, kind: str, chance: random.Random) -> str:
    """A student's notebook of that kind, as the text of its file."""
    source = lesson_files.read_lesson(lesson_files.ROOT / "lessons" / f"{lesson.name}.py")
    made = lesson_files.student_version(source)
    answers = dict(lesson.solutions)
    if kind == "mistaken":
        for exercise, old, new, _ in chance.sample(lesson.wrong, 2):
            answers[exercise] = lesson.solutions[exercise].replace(old, new)
    elif kind == "begun":
        answers = dict(list(answers.items())[: chance.randint(1, len(answers))])
    elif kind == "empty":
        answers = {}
    for cell in made.cells:
        cell.source = answers.get(cell.id.removeprefix("exercise-"), cell.source)
    text = nbformat.writes(made)
    return text[: len(text) // 2] if kind == "damaged" else text


def write_class(folder: Path, students: int, chosen: list[Lesson], seed: int) -> int:
    """Writes the class; returns how many notebooks there are."""
    chance, written = random.Random(seed), 0
    for number in range(students):
        (folder / f"student {number:03}").mkdir(parents=True)
        for lesson in chosen:
            (kind,) = chance.choices(list(KINDS), KINDS.values())
            if kind != "missing":
                path = folder / f"student {number:03}" / f"{lesson.name}.ipynb"
                path.write_text(notebook(lesson, kind, chance), encoding="utf-8")
                written += 1
    return written


def memory(process: psutil.Process) -> float:
    """GB that a process and its children hold, each shared page counted once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except (psutil.Error, OSError):
            continue  # it has just ended
    return total / 1e9


def graded(submissions: Path, out: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds and most GB of `course.grade`."""
    command = [sys.executable, "-m", "course.grade", str(submissions), "--out", str(out)]
    command += ["--jobs", str(options.jobs)] + (
        ["--lessons", *options.lessons] * bool(options.lessons)
    )
    started, most = time.perf_counter(), 0.0
    with (out.parent / "said.txt").open("w") as said:
        running = psutil.Popen(command, cwd=lesson_files.ROOT, stdout=said, stderr=said)
        while running.poll() is None:
            most = max(most, memory(running))
            with suppress(psutil.TimeoutExpired):
                running.wait(10)  # looking takes a while itself
    if running.returncode:
        sys.exit((out.parent / "said.txt").read_text())
    return time.perf_counter() - started, most


def differences(submissions: Path, out: Path, count: int) -> tuple[int, int, float]:
    """Of some notebooks, how many there were, how many verdicts differ from those in kernels of
    their own, and the seconds that those took."""
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    different, started = 0, time.perf_counter()
    sample = random.Random(0).sample(lines, min(count, len(lines)))
    for line in sample:
        lesson = lesson_files.read_lesson(lesson_files.ROOT / "lessons" / f"{line['lesson']}.py")
        path = submissions / line["student"] / f"{line['lesson']}.ipynb"
        rows = engine.run_file(line["lesson"], path, lesson, Kernel, 60)
        for row, before in zip(rows, line["rows"], strict=True):
            if (row.outcome, row.message) != (before["outcome"], before["message"]):
                different += 1
                print(f"{line['student']}: {before} alone: {row}")
    return len(sample), different, time.perf_counter() - started


def with_nbgrader(submissions: Path, folder: Path, name: str, python: Path, count: int) -> float:
    """Seconds a submission of nbgrader's autograde, training cells left out."""
    nbgrader.write(folder, Points({}))
    kernel = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
    }
    (folder / "kernels" / "python3").mkdir(parents=True)
    (folder / "kernels" / "python3" / "kernel.json").write_text(json.dumps(kernel))
    settings = {**os.environ, "JUPYTER_PATH": str(folder), "PYTHONPATH": ""}
    settings["PATH"] = f"{python.parent}{os.pathsep}{settings['PATH']}"

    def run(*arguments):
        command = [python.with_name("nbgrader"), *arguments]
        subprocess.run(command, cwd=folder, env=settings, check=True, capture_output=True)

    run("generate_assignment", name, "--create")
    release = nbformat.read(folder / "release" / name / f"{name}.ipynb", as_version=4)
    taken = sorted(submissions.glob(f"*/{name}.ipynb"))[:count]
    for number, path in enumerate(taken):
        made = nbformat.from_dict(release)
        theirs = {c.id: c.source for c in lesson_files.parse_notebook(path.read_bytes()).cells}
        first = True
        for cell in made.cells:
            if cell.id.startswith("exercise-"):
                cell.source = theirs[cell.id]
            elif cell.cell_type == "code" and "nbgrader" not in cell.metadata:
                text = f"import sys\nsys.path.insert(0, {str(lesson_files.ROOT)!r})\n{cell.source}"
                cell.source = text.partition("\ntrain, test")[0] if first else ""
                first = False
        target = folder / "submitted" / f"s{number}" / name / f"{name}.ipynb"
        target.parent.mkdir(parents=True)
        nbformat.write(made, target)
    started = time.perf_counter()
    run("autograde", name, "--create")
    return (time.perf_counter() - started) / len(taken)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--students", type=int, default=300)
    parser.add_argument("--lessons", nargs="*", default=[], help="numbers (default: all)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", type=int, default=0, metavar="N")
    parser.add_argument("--nbgrader", type=Path, metavar="PYTHON")
    options = parser.parse_args()
    numbers = {int(number) for number in options.lessons}
    chosen = [one for one in lessons() if not numbers or int(one.name[:2]) in numbers]
    with tempfile.TemporaryDirectory() as scratch:
        submissions, out = Path(scratch, "in"), Path(scratch, "out")
        written = write_class(submissions, options.students, chosen, options.seed)
        seconds, most = graded(submissions, out, options)
        each = seconds / options.students
        print(f"{options.students} students, {written} notebooks, {options.jobs} at once")
        print(f"{seconds / 60:.1f} min, {each:.2f} s a student, at most {most:.2f} GB", flush=True)
        if options.alone:
            count, different, took = differences(submissions, out, options.alone)
            print(f"{count} of them alone, in kernels: {different} verdicts differ")
            print(f"{took / count:.1f} s a notebook, here {seconds / written:.2f}", flush=True)
        if options.nbgrader:
            name = chosen[0].name
            readable = Path(scratch, "readable")
            write_readable(submissions, readable, name)
            took = with_nbgrader(readable, Path(scratch, "nb"), name, options.nbgrader, 10)
            ratio = took / (seconds / written)
            print(f"nbgrader, {name}: {took:.1f} s a notebook, {ratio:.0f} x as long")


def write_readable(submissions: Path, folder: Path, name: str) -> None:
    """Links to those notebooks of a lesson that are whole."""
    for path in submissions.glob(f"*/{name}.ipynb"):
        try:
            lesson_files.read_notebook(path)
        except ValueError:
            continue
        target = folder / path.parent.name / path.name
        target.parent.mkdir(parents=True)
        target.symlink_to(path)


if __name__ == "__main__":
    main()
