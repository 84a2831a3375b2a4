"""The house: who may import whom, and how long a function and a module may be."""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = [
    ROOT / "vit.py",
    *sorted(p for d in ("coatnet", "course") for p in (ROOT / d).rglob("*.py")),
]
COMMANDS = {
    f"course.{name}"
    for name in ("book", "build", "grade", "learn", "predict", "progress", "train", "update")
}
OURS = {"vit", "coatnet", "course", "tests", "benchmarks"}
FILES = {"course.lesson_files", "course.classroom"}
RULES = {  # what imports -> what it must not import
    "vit": {"coatnet", "course", "tests"},
    "coatnet": {"course", "tests"},
    "course": {"tests", "benchmarks", *COMMANDS},
    "course.data": {"course.training", "course.checks", "course.models", *FILES},
    "course.training": {"course.checks", "course.models", *FILES},
    "course.checks": {"course.models", *FILES},
    "course.checking": FILES,
    "course.comparing": FILES,
}
# Tables of mistakes, each a line or two with its hint, are read like data: in checks, what is
# called so
TABLES = re.compile(r"^_?\w+_(mistakes|shapes)$")


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in CODE}


@cache
def imports(path):
    """The course's own modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide where a thing comes from"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            known = {name for name in whole if name in MODULES or name in COMMANDS}
            found |= known or {node.module}
    return {name for name in found if name.partition(".")[0] in OURS}


def within(name, room):
    return name == room or name.startswith(f"{room}.")


@pytest.mark.parametrize("room", RULES)
def test_imports_go_in_one_direction(room):
    modules = {name: path for name, path in MODULES.items() if within(name, room)}
    assert modules, f"there is no {room}"
    for name, path in modules.items():
        for imported in imports(path):
            forbidden = [other for other in RULES[room] if within(imported, other)]
            assert not forbidden, f"{name} imports {imported}"


def test_there_is_no_circle():
    """`TopologicalSorter` raises CycleError, with the circle, where there is one."""
    graph = {name: imports(path) & MODULES.keys() for name, path in MODULES.items()}
    assert any(graph.values())
    list(TopologicalSorter(graph).static_order())


def test_a_student_never_needs_a_command():
    for path in sorted((ROOT / "lessons").glob("*.py")):
        assert not imports(path) & COMMANDS, path.name


def too_long(path):
    """What is over 60 lines, of functions, or over 400, of modules: names with lengths."""
    lines = path.read_text().splitlines()
    in_checks = path.is_relative_to(ROOT / "course" / "checks")
    found = [f"{path.name}: {len(lines)} lines"] if len(lines) > 400 and not in_checks else []
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            if length > 60 and not (in_checks and TABLES.match(node.name)):
                found.append(f"{node.name}: {length} lines")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_functions_and_modules_are_of_a_size_to_be_read(name):
    found = too_long(MODULES[name])
    assert not found


def public_functions(tree):
    """The functions that others call: names without a leading underscore, and `__init__`."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef) and (
            node.name == "__init__" or not node.name.startswith("_")
        ):
            yield node


def untyped(path):
    """Arguments and results of public functions that say no type."""
    for function in public_functions(ast.parse(path.read_text())):
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += filter(None, (arguments.vararg, arguments.kwarg))
        yield from (
            f"{function.name}({argument.arg})"
            for argument in every
            if not argument.annotation and argument.arg not in ("self", "cls")
        )
        if not function.returns and function.name != "__init__":
            yield f"{function.name} ->"


@pytest.mark.parametrize("name", [name for name in MODULES if not within(name, "course.checks")])
def test_public_functions_say_their_types(name):
    found = list(untyped(MODULES[name]))
    assert not found


@pytest.mark.parametrize("path", CODE, ids=module_name)
def test_no_function_changes_the_names_around_it(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Nonlocal), (
            f"{path.name}, line {node.lineno}: make it an object"
        )
