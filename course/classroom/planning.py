"""Which code of a student's notebook runs: its exercises, what they use, and their checks.

The student's own cells run; of the lesson's other cells only what an exercise uses, so that nothing
trains and no data is loaded.
"""

import ast
import re
import symtable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from course import lesson_files
from course.lesson_files import Exercise, exercises_of

PYTHON_BELOW = ("time", "capture", "prun")  # cell magics that run their cell as the notebook's own
UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)  # what parsing text may raise
MISSING_CHECK = "its check is missing from the notebook, and ran anyway"


@dataclass
class Step:
    """Code to run, and the exercise that it answers, stands below or, where it is a check, checks.

    `answers`: it is a cell of the exercise, not only one between its cell and its check.
    `checks`: the import of the checks, where the code is the call of one.
    `probe`: the check gets a known wrong answer instead.
    `note`: what a teacher should know of a check, whatever it says.
    """

    source: str
    exercise: Exercise | None = None
    answers: bool = False
    checks: str = ""
    probe: bool = False
    note: str = ""


def plan(notebook: NotebookNode, lesson: NotebookNode) -> list[Step]:
    """The steps of a student's notebook: the lesson's imports, then what it holds, in its order.

    A check is known by its call, whatever its cell's id, and runs even where its cell is missing.
    An exercise is known by its id or by the name that it defines, a cell of the lesson by its id or
    its text.
    """
    return _Plan(lesson, list(code_cells(notebook))).made()


class _Plan:
    def __init__(self, lesson, cells):
        self.exercises = exercises_of(lesson)
        self.ids = {cell.id for cell in lesson.cells}
        self.texts = {cell.source.strip() for cell in lesson_files.student_version(lesson).cells}
        self.imports = [ast.unparse(statement) for statement in imports_of(lesson)]
        self.the_checks = next((line for line in self.imports if "check" in names(line)[0]), "")
        self.cells = [(cell_id, *without_checks(text, self.exercises)) for cell_id, text in cells]
        self.steps = [Step("\n".join(self.imports))]
        self.begun = []  # exercises whose cells have come and that wait for their check, in order
        called = [exercise for *_, calls in self.cells for exercise, _ in calls]
        self.unchecked = [exercise for exercise in self.exercises if exercise not in called]
        self.lessons_own = []  # pairs of a place in steps and a statement there

    def made(self):
        for cell_id, source, calls in self.cells:
            self._add_cell(cell_id, source)
            for exercise, call in calls:
                self._check_what_has_no_check(until=exercise)
                other = "" if call == exercise.check else f"the notebook checks it with {call}"
                self._add_check(exercise, call, other)
                self.begun = [e for e in self.begun if e != exercise]
        self._check_what_has_no_check()
        for exercise in self.unchecked:
            self._add_check(exercise, exercise.check)
        used = used_by_exercises(self.lessons_own, self.steps, self.exercises)
        for place, statement in reversed(used):
            self.steps.insert(place, Step(statement))
        return self.steps

    def _add_cell(self, cell_id, source):
        exercise = self._answered_by(cell_id, source)
        if exercise:
            self._check_what_has_no_check(until=exercise)
            self.begun = [e for e in self.begun if e != exercise] + [exercise]
            self.steps.append(Step(source, exercise, answers=True))
        elif cell_id in self.ids or source.strip() in self.texts:
            own = [text for text in statements(source) if text not in self.imports]
            self.lessons_own += [(len(self.steps), text) for text in own]
        elif source.strip():
            self.steps.append(Step(source, self.begun[-1] if self.begun else None))

    def _answered_by(self, cell_id, source):
        by_id = (e for e in self.exercises if cell_id in e.cells)
        by_name = (e for e in self.exercises if defines(source, e.answer))
        return next(by_id, None) or next(by_name, None)

    def _add_check(self, exercise, call, note=""):
        self.steps.append(Step(call, exercise, checks=self.the_checks, note=note))

    def _check_what_has_no_check(self, until=None):
        for exercise in [e for e in self.begun if e in self.unchecked and e != until]:
            self.unchecked.remove(exercise)
            self._add_check(exercise, exercise.check, MISSING_CHECK)


def lesson_of(notebook: NotebookNode, lessons: dict[str, NotebookNode], name: str = "") -> str:
    """The name of the lesson that a notebook is of, or "": the one that it has most exercises of.

    `name`, its file's, decides between equals.
    """
    cells = list(code_cells(notebook))
    best, most = "", 0
    for title, lesson in lessons.items():
        found = 0
        for exercise in exercises_of(lesson):
            for cell_id, source in cells:
                written = re.search(rf"^(class|def) {exercise.answer}\b", source, re.MULTILINE)
                by_id = cell_id in (*exercise.cells, f"check-{exercise.name}")
                found += by_id or bool(written) or exercise.check in source
        named = bool(re.search(rf"(?<!\d){title.partition('_')[0]}_", name))
        if (found, found and named) > (most, False):
            best, most = title, found
    return best


def imports_of(lesson: NotebookNode) -> list[ast.stmt]:
    """The import statements of a lesson's first cell, which also loads data."""
    first = next(cell for cell in lesson.cells if cell.cell_type == "code")
    return [n for n in ast.parse(first.source).body if isinstance(n, ast.Import | ast.ImportFrom)]


def code_cells(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Id and text of the code cells, without what only takes their time or hides their output."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            yield cell.get("id", ""), without_timing(cell.source)


def without_timing(source: str) -> str:
    """A cell without a first line such as %%time, behind which names would not be seen."""
    first, _, rest = source.lstrip().partition("\n")
    magic = re.match(r"%%(\w+)", first)
    return without_timing(rest) if magic and magic[1] in PYTHON_BELOW else source


@lru_cache(4096)
def plain(source: str) -> str:
    """A cell as Python alone, without IPython's magics."""
    return TransformerManager().transform_cell(source)


def needs_ipython(source: str) -> bool:
    """True where a cell holds magics, shell commands or what only a notebook defines."""
    try:
        tree = ast.parse(source)
    except UNREADABLE:
        return "get_ipython()" in plain(source)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    waits = ast.Await | ast.AsyncFor | ast.AsyncWith
    awaits = any(isinstance(node, waits) for node in _outside_functions(tree))
    return awaits or bool(used & {"get_ipython", "display", "In", "Out", "_"} - names(source)[0])


def _outside_functions(node):
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _outside_functions(child)


def without_checks(
    source: str, exercises: list[Exercise]
) -> tuple[str, list[tuple[Exercise, str]]]:
    """A cell without its check calls, and these as pairs of exercise and call."""
    try:
        body = ast.parse(plain(source)).body
    except UNREADABLE:  # it will say so when it runs
        return source, [(e, e.check) for e in exercises if f"{e.call}(" in source]
    found, kept = [], []
    for statement in body:
        # Also in a try: a check whose failure nobody sees would seem to pass
        all_calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
        calls = [(e, n) for n in all_calls for e in exercises if ast.unparse(n.func) == e.call]
        for exercise, node in calls:
            as_written = node.args and all(isinstance(a, ast.Name) for a in node.args)
            found.append((exercise, ast.unparse(node) if as_written else exercise.check))
        if not calls:
            kept.append(statement)
    return ("\n".join(map(ast.unparse, kept)), found) if found else (source, [])


def defines(source: str, name: str) -> bool:
    """True where a cell defines the name, also where a slip keeps it from being read as Python."""
    pattern = rf"^(class|def) {name}\b"
    return name in names(source)[0] or bool(re.search(pattern, source, re.MULTILINE))


def statements(source: str) -> list[str]:
    """The statements of a cell, each as text; none where it is no Python."""
    try:
        return [ast.unparse(statement) for statement in ast.parse(plain(source)).body]
    except UNREADABLE:
        return []


@lru_cache(4096)
def names(source: str) -> tuple[set[str], set[str]]:
    """The global names that code binds, and those that it uses from elsewhere."""
    try:
        table = symtable.symtable(plain(source), "cell", "exec")
    except UNREADABLE:
        return set(), set()
    symbols = table.get_symbols()
    bound = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    used, tables = set(), [table]
    while tables:
        inner = tables.pop()
        used |= {s.get_name() for s in inner.get_symbols() if s.is_global() or inner is table}
        tables += inner.get_children()
    return bound, used - bound


def used_by_exercises(
    lessons_own: list[tuple[int, str]], steps: list[Step], exercises: list[Exercise]
) -> list[tuple[int, str]]:
    """Those of the lesson's own statements that make what the exercises use, at any remove."""
    needed = {exercise.answer for exercise in exercises}
    for step in steps:
        if step.answers:
            needed |= names(step.source)[1]
    found = [names(step.source) for step in steps[1:] if not step.checks]
    found += [names(statement) for _, statement in lessons_own]
    size = 0
    while size < len(needed):
        size = len(needed)
        for bound, used in found:
            if bound & needed:
                needed |= used
    return [(place, text) for place, text in lessons_own if names(text)[0] & needed]
