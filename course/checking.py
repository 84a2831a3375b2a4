"""What a check says, and how a notebook shows it: `NotAttempted`, `CheckFailed`, `exercise`."""

import ast
import functools
import inspect
import os
import textwrap
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch

COURSE = Path(__file__).parents[1]
NOT_THE_STUDENTS = (  # files whose frames are left out when a student's line is shown
    str(Path(__file__).parent),
    str(COURSE / "vit.py"),
    str(COURSE / "coatnet"),
    str(Path(torch.__file__).parents[1]),  # site-packages
    str(Path(os.__file__).parent),  # the standard library
)


class Shown(Exception):
    """An outcome that a notebook shows as its message alone, without a traceback."""

    def _render_traceback_(self):  # IPython asks an exception for this before it formats one
        return str(self).splitlines()  # no colours: they clash with one theme or the other


class NotAttempted(Shown):
    """The exercise still holds its placeholder."""


class CheckFailed(Shown):
    """The answer is wrong: what was expected, what came, the likeliest mistake, where to look."""

    def __init__(self, expected, came, likely="", look_at="", title=""):
        self.rows = {"expected": expected, "came": came, "likely": likely, "look at": look_at}
        self.title = title
        super().__init__(expected, came)

    def __str__(self):
        lines = [f"✗ {self.title}"]
        for label, text in self.rows.items():
            if text:
                text = textwrap.indent(str(text), " " * 12).lstrip()
                lines.append(f"  {label:<10}{text}")
        return "\n".join(lines)


# What an exception in a student's code most likely means, by a part of its message.
LIKELY = {
    "before Module.__init__() call": "`super().__init__()` is missing, or does not come first",
    "NoneType": "a method is still empty or has no `return`, so that it gives None",
    "object has no attribute": "set it in `__init__`, as an attribute of `self`",
    "modified by an inplace operation": "`x += ...` changes in place what the gradient needs; "
    "write `x = x + ...`",
    "mat1 and mat2": "the shapes do not fit: print them before that line",
    "Expected size for first two dimensions": "the shapes do not fit: print them before that line",
    "Sizes of tensors must match": "torch.cat joins along one axis; all others must be equal, also"
    " the batch: see `expand`",
    "must match": "the shapes do not fit: print them before that line",
    "out of bounds": "an index lies outside of the tensor: print its min() and max()",
}

_references: dict[
    str, tuple
] = {}  # name of an answer -> (the reference's version, the exercises it builds on)
_passed: dict = {}  # name of an answer -> the student's version that passed its check last


def exercise(title, reference, to_write, builds_on=()):
    """Makes a check of a function that takes a student's answer and returns what it proved.

    title: the exercise's name, as the lesson's heading has it.
    reference: the class or function of vit.py or coatnet/ that the answer rebuilds.
    to_write: names of the methods that the student fills in; () where the answer is a function.
    builds_on: references that the answer uses and that are exercises of the same lesson. While the
        check runs they stand in for the student's own, so that a slip there does not show here.

    The check prints one line when the answer is right, raises NotAttempted where the placeholder
    still stands, and CheckFailed where the answer is wrong. It leaves torch's random state alone.
    """

    def decorate(prove):
        _references[reference.__name__] = reference, builds_on
        where = ", ".join(f"{reference.__name__}.{name}" for name in to_write) or reference.__name__

        @functools.wraps(prove)
        def check(answer):
            _passed.pop(reference.__name__, None)
            try:
                _require_attempt(title, answer, to_write)
                _require_defaults(answer, reference)
                parts = () if answer is reference else builds_on
                with _leaving_no_trace(), _standing_in(answer, parts):
                    proven = prove(answer)
            except CheckFailed as failure:
                failure.title = title
                failure.rows["look at"] = failure.rows["look at"] or where
                raise failure.with_traceback(None) from None
            _passed[reference.__name__] = answer
            print(f"✓ {title}: {proven}")

        return check

    return decorate


def yours(answer):
    """The student's answer once it has passed its check; until then the reference in its place.

    Lets the cells after an exercise run, whether or not it has been done.
    """
    name = answer.__name__
    if _proven(answer):
        return answer
    print(f"(the reference's {name} stands in until the check of yours, and of its parts, passes)")
    return _references[name][0]


def _proven(answer):
    reference, builds_on = _references[answer.__name__]
    if answer is reference:
        return True
    parts = [_globals(answer).get(part.__name__, part) for part in builds_on]
    return _passed.get(answer.__name__) is answer and all(map(_proven, parts))


@contextmanager
def students_code(expected):
    """Turns an exception in a student's code into a CheckFailed that shows the student's line."""
    try:
        yield
    except Shown:
        raise
    except Exception as error:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if not frame.filename.startswith(NOT_THE_STUDENTS)
        ]
        message = str(error).strip()
        raise CheckFailed(
            expected=expected,
            came=textwrap.shorten(f"{type(error).__name__}: {message}", 200, placeholder=" ..."),
            likely=next((hint for part, hint in LIKELY.items() if part in message), ""),
            look_at=f"line {frames[-1].lineno}, in {frames[-1].name}:\n{frames[-1].line}"
            if frames
            else "",
        ) from error


def _require_attempt(title, answer, to_write):
    if not callable(answer) or isinstance(answer, torch.nn.Module):
        raise CheckFailed("the class or function itself", f"an object, {type(answer).__name__}")
    functions = {name: getattr(answer, name, None) for name in to_write} or {"": answer}
    empty = [name for name, function in functions.items() if _is_placeholder(function)]
    if len(empty) == len(functions):
        raise NotAttempted(
            f"○ {title}: not attempted yet. Fill in the TODO above, then run this again."
        )
    if empty:
        names = " and ".join(f"`{name}`" for name in empty)
        raise NotAttempted(f"○ {title}: not finished yet, {names} is still to be written.")


def _require_defaults(answer, reference):
    """Arguments that may be left out mean in the answer what they mean in the reference."""
    right, came = (inspect.signature(function).parameters for function in (reference, answer))
    for name in right.keys() & came.keys():
        defaults = right[name].default, came[name].default
        if inspect.Parameter.empty not in defaults and defaults[0] != defaults[1]:
            raise CheckFailed(
                f"{name}={defaults[0]} by default",
                f"{name}={defaults[1]}",
                "the first line was given: other cells count on its defaults",
            )


def _is_placeholder(function):
    """True where nothing has been written: a body of `pass`, `...` and `super().__init__()` alone,
    or one with a `...` left where a value belongs."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return False
    body = tree.body[0].body if hasattr(tree.body[0], "body") else tree.body
    written = [statement for statement in body if not _does_nothing(statement)]
    indices = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        for part in ast.walk(node.slice)
    }
    gaps = [
        node
        for statement in written
        for node in ast.walk(statement)
        if isinstance(node, ast.Constant) and node.value is ... and id(node) not in indices
    ]
    return bool(gaps) or not written


def _does_nothing(statement):
    if isinstance(statement, ast.Pass):
        return True
    return isinstance(statement, ast.Expr) and (
        isinstance(statement.value, ast.Constant)  # a docstring or `...`
        or ast.unparse(statement.value) == "super().__init__()"
    )


def _globals(answer):
    """The namespace that the answer was written in: the notebook's."""
    functions = [f for f in (answer, *vars(answer).values()) if inspect.isfunction(f)]
    return functions[0].__globals__ if functions else {}


@contextmanager
def _leaving_no_trace():
    """The same random numbers for every check, and torch's own as they were; no warnings; and one
    thread, because on a busy machine several would only wait for each other over tensors so small.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(0)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def _standing_in(answer, references):
    """Puts the references in place of the student's classes of those names, and back again."""
    namespace = _globals(answer)
    theirs = {r.__name__: namespace[r.__name__] for r in references if r.__name__ in namespace}
    namespace.update({r.__name__: r for r in references if r.__name__ in theirs})
    try:
        yield
    finally:
        namespace.update(theirs)
