"""Answers to exercises as source text, defined the way a notebook defines them."""

import ast
import itertools
import linecache

from course import lesson_files

_numbers = itertools.count()


def define(source, namespace):
    """Runs `source` in `namespace`, with its text where tracebacks and `inspect` look for it."""
    filename = f"<cell {next(_numbers)}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), namespace)


def exercise_cells(lesson, version=lesson_files.solution_version):
    """The source of each exercise of a lesson, by its cell's id without the prefix."""
    notebook = version(lesson_files.read_lesson(lesson_files.ROOT / "lessons" / f"{lesson}.py"))
    return {
        cell.id.removeprefix("exercise-"): cell.source
        for cell in notebook.cells
        if cell.id.startswith("exercise-")
    }


def imports(lesson):
    """A fresh namespace with what a lesson's first cell imports, without loading any data."""
    notebook = lesson_files.read_lesson(lesson_files.ROOT / "lessons" / f"{lesson}.py")
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    body = ast.parse(first.source).body
    found = [ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    namespace = {"__name__": "__main__"}
    define("\n".join(found), namespace)
    return namespace


def changed(source, old, new):
    """`source` with its one occurrence of `old` replaced."""
    assert source.count(old) == 1, f"{source.count(old)} times in the solution: {old!r}"
    return source.replace(old, new)


def run_check(lesson, checks, exercise, source, given=""):
    """Checks `source` in a notebook where the exercises before it are solved and `given` stands.

    checks: for each exercise its check and the name of its answer. Raises what the check raises.
    """
    namespace = imports(lesson)
    for name, solution in exercise_cells(lesson).items():
        if name == exercise:
            break
        define(solution, namespace)
    define(given, namespace)
    define(source, namespace)
    check, answer = checks[exercise]
    check(namespace[answer])
