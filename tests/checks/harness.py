"""The lessons' exercises as the tests of checks see them: each with its check, its solution, and
the wrong and right answers of `answers/lessonNN.py`. A new lesson needs no more than its tables.
"""

import ast
import functools
import importlib
import itertools
import linecache

from course import lesson_files

_numbers = itertools.count()


def define(source, namespace):
    """Runs `source` in `namespace`, with its text where tracebacks and `inspect` look for it."""
    filename = f"<cell {next(_numbers)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), namespace)


def changed(source, old, new):
    """`source` with its one occurrence of `old` replaced."""
    assert source.count(old) == 1, f"{source.count(old)} times in the solution: {old!r}"
    return source.replace(old, new)


@functools.cache
def read(name):
    return lesson_files.read_lesson(lesson_files.ROOT / "lessons" / f"{name}.py")


def exercise_cells(name, version=lesson_files.solution_version):
    """The source of each exercise of a lesson, by its cell's id without the prefix."""
    return {
        cell.id.removeprefix("exercise-"): cell.source
        for cell in version(read(name)).cells
        if cell.id.startswith("exercise-")
    }


def imports(name):
    """A fresh namespace with what a lesson's first cell imports, without loading any data."""
    first = next(cell for cell in read(name).cells if cell.cell_type == "code")
    body = ast.parse(first.source).body
    found = [ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    namespace = {"__name__": "__main__"}
    define("\n".join(found), namespace)
    return namespace


class Lesson:
    """A lesson's exercises by name, such as "mbconv".

    solutions: each one's source. titles: as its heading has it. checks: each one's check and the
        name of its answer.
    wrong: (exercise, text of the solution, what stands there instead, what the message says).
    several: (exercise, pairs of texts, each replaced wherever it stands, what the message says).
    right: for each exercise its right answers in other styles, by what is special about them.
    What a message says may be alternatives, with "|" between them.
    """

    def __init__(self, name):
        number = name.partition("_")[0]
        module = importlib.import_module(f"course.checks.lesson{number}")
        tables = importlib.import_module(f"tests.checks.answers.lesson{number}")
        self.name = name
        self.solutions = exercise_cells(name)
        self.placeholders = exercise_cells(name, lesson_files.student_version)
        self.checks, self.titles = {}, {}
        for exercise in lesson_files.exercises_of(read(name)):
            call = exercise.call.removeprefix("check.")
            name = call.replace("_", "-")
            self.checks[name] = getattr(module, call), exercise.answer
            self.titles[name] = exercise.title
        self.wrong = tables.WRONG
        self.several = getattr(tables, "SEVERAL", [])
        self.right = tables.RIGHT
        self.given = getattr(tables, "GIVEN", "")  # what answers may use besides the exercises

    def solved(self, *exercises, until=None):
        """A notebook's namespace with those exercises solved, or all, or all before `until`."""
        namespace = imports(self.name)
        for exercise, solution in self.solutions.items():
            if exercise == until:
                break
            if exercise in exercises or not exercises:
                define(solution, namespace)
        return namespace

    def run_check(self, exercise, source):
        """Checks `source` where the exercises before it are solved. Raises what the check does."""
        namespace = self.solved(until=exercise)
        define(self.given, namespace)
        define(source, namespace)
        check, answer = self.checks[exercise]
        check(namespace[answer])


@functools.cache
def lessons():
    """All lessons, in order."""
    paths = sorted((lesson_files.ROOT / "lessons").glob("*.py"))
    return [Lesson(path.stem) for path in paths]


def lesson(number):
    """The lesson of that number, such as 3."""
    return next(found for found in lessons() if found.name.startswith(f"{number:02d}_"))
